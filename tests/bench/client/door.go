package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// door asks for the credentials on kept connections, as fast as answers come, in bursts that begin with a second of the
// clock: a jail that asks more often than its share a second is slowed on purpose.
func door() error {
	place, path, _ := strings.Cut(*url, "/")
	header := ""
	if *token {
		issued, err := issue(place)
		if err != nil {
			return err
		}
		header = "X-aws-ec2-metadata-token: " + issued + "\r\n"
	}
	request := []byte("GET /" + path + " HTTP/1.1\r\nHost: " + place + "\r\n" + header + "\r\n")
	connections := make([]*asker, *ways)
	for n := range connections {
		connection, err := net.Dial("tcp", place)
		if err != nil {
			return err
		}
		defer connection.Close()
		connections[n] = &asker{connection, bufio.NewReader(connection), nil, nil}
	}
	var busy time.Duration
	for range *seconds {
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		busy += volley(connections, request)
	}
	var took []time.Duration
	for _, one := range connections {
		if one.fault != nil {
			return one.fault
		}
		took = append(took, one.took...)
	}
	if len(took) == 0 {
		return errNothing
	}
	rate := float64(len(took)) / busy.Seconds()
	return tell(map[string]float64{"count": float64(len(took)), "rate": rate, "p50": at(took, 0.5), "p99": at(took, 0.99)})
}

type asker struct {
	connection net.Conn
	reader     *bufio.Reader
	took       []time.Duration
	fault      error
}

// volley shares one burst among the connections.
func volley(connections []*asker, request []byte) time.Duration {
	var all sync.WaitGroup
	var asked atomic.Int64
	began := time.Now()
	for _, one := range connections {
		all.Go(func() {
			for one.fault == nil && asked.Add(1) <= int64(*burst) {
				started := time.Now()
				one.fault = one.ask(request)
				one.took = append(one.took, time.Since(started))
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

func (a *asker) ask(request []byte) error {
	if _, err := a.connection.Write(request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(a.reader, nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != 200 || !strings.Contains(string(text), "SecretAccessKey") {
		return fmt.Errorf("no credentials but %s %q", answer.Status, text)
	}
	return nil
}

func issue(place string) (string, error) {
	request, err := http.NewRequest("PUT", "http://"+place+"/latest/api/token", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("X-aws-ec2-metadata-token-ttl-seconds", "300")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}
