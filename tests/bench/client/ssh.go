package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// dialler makes a connection as the user whose turn it is.
func dialler() (func(turn int) (*ssh.Client, error), error) {
	text, err := os.ReadFile(*key)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	if text, err = os.ReadFile(*host); err != nil {
		return nil, err
	}
	server, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, err
	}
	names := strings.Split(*users, ",")
	return func(turn int) (*ssh.Client, error) {
		return ssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", *port), &ssh.ClientConfig{
			Config:            ssh.Config{KeyExchanges: []string{"curve25519-sha256"}},
			User:              names[turn%len(names)],
			Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
			HostKeyCallback:   ssh.FixedHostKey(server),
			HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		})
	}, nil
}

// logins: connect, `true`, close, again and again on each way.
func logins() error {
	dial, err := dialler()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var lock sync.Mutex
	var took []time.Duration
	var failed error
	began := time.Now()
	end := began.Add(time.Duration(*seconds) * time.Second)
	for way := range *ways {
		all.Go(func() {
			for time.Now().Before(end) {
				started := time.Now()
				err := login(dial, way)
				lock.Lock()
				took = append(took, time.Since(started))
				if err != nil {
					failed = err
				}
				lock.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	if failed != nil {
		return failed
	}
	rate := float64(len(took)) / time.Since(began).Seconds()
	return tell(map[string]float64{"count": float64(len(took)), "rate": rate, "p50": at(took, 0.5), "p95": at(took, 0.95)})
}

func login(dial func(int) (*ssh.Client, error), turn int) error {
	client, err := dial(turn)
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	return session.Run("true")
}

// idle opens shells in terminals, waits for each one's prompt, says so, and keeps all until its input ends.
func idle() error {
	dial, err := dialler()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var next atomic.Int64
	clients := make([]*ssh.Client, *count)
	faults := make([]error, *count)
	began := time.Now()
	for range *ways {
		all.Go(func() {
			for n := int(next.Add(1)) - 1; n < *count; n = int(next.Add(1)) - 1 {
				clients[n], faults[n] = shell(dial, n)
			}
		})
	}
	all.Wait()
	for n, err := range faults {
		if err != nil {
			return fmt.Errorf("session %d: %w", n, err)
		}
	}
	if err := tell(map[string]float64{"took": time.Since(began).Seconds()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	for _, client := range clients {
		client.Close()
	}
	return err
}

func shell(dial func(int) (*ssh.Client, error), turn int) (*ssh.Client, error) {
	client, err := dial(turn)
	if err != nil {
		return nil, err
	}
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
		return nil, err
	}
	if _, err := session.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := session.Shell(); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(output, 16)
	for last := byte(0); ; {
		now, err := reader.ReadByte()
		if err != nil {
			return nil, fmt.Errorf("it ended before its prompt: %w", err)
		}
		if last == '$' && now == ' ' {
			go io.Copy(io.Discard, reader)
			return client, nil
		}
		last = now
	}
}
