package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// get asks for one thing `count` times on kept connections: as fast as answers come, or `rate` times a second, each then
// measured from when it was due.
func get() error {
	ask, err := asking()
	if err != nil {
		return err
	}
	for range 20 {
		if err := ask(); err != nil {
			return err
		}
	}
	var all sync.WaitGroup
	var next atomic.Int64
	took := make([]time.Duration, *count)
	faults := make([]error, *ways)
	began := time.Now()
	for way := range *ways {
		all.Go(func() {
			for faults[way] == nil {
				n := int(next.Add(1)) - 1
				if n >= *count {
					return
				}
				started := time.Now()
				if *rate > 0 {
					started = began.Add(time.Duration(n) * time.Second / time.Duration(*rate))
					time.Sleep(time.Until(started))
				}
				faults[way] = ask()
				took[n] = time.Since(started)
			}
		})
	}
	all.Wait()
	for _, err := range faults {
		if err != nil {
			return err
		}
	}
	rate := float64(*count) / time.Since(began).Seconds()
	return tell(map[string]float64{"count": float64(*count), "rate": rate, "p50": at(took, 0.5), "p95": at(took, 0.95),
		"p99": at(took, 0.99)})
}

func asking() (func() error, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: *ways, ForceAttemptHTTP2: true, DisableCompression: true}
	if *ca != "" {
		text, err := os.ReadFile(*ca)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(text)
	}
	request, err := http.NewRequest("GET", *url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "bench/1")
	if *bearer != "" {
		text, err := os.ReadFile(*bearer)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Authorization", "Bearer "+string(text))
	}
	client := &http.Client{Transport: transport}
	return func() error {
		answer, err := client.Do(request.Clone(request.Context()))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err == nil && answer.StatusCode != 200 {
			err = fmt.Errorf("%s %.200s", answer.Status, text)
		}
		return err
	}, nil
}
