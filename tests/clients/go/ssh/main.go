// One program or shell on 127.0.0.1, as `ssh` runs it, by golang.org/x/crypto/ssh.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

var (
	port   = flag.Int("port", 22, "")
	user   = flag.String("user", "", "")
	key    = flag.String("key", "", "")
	known  = flag.String("known-hosts", "", "")
	rekey  = flag.Uint64("rekey", 0, "bytes after which keys are changed")
	pty    = flag.Bool("pty", false, "ask for a terminal of 80 columns and 24 rows")
	signal = flag.String("signal", "", "sent when the first output has come")
)

func main() {
	flag.Parse()
	code, err := run(strings.Join(flag.Args(), " "))
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		code = 255
	}
	os.Exit(code)
}

func connect() (*ssh.Client, error) {
	text, err := os.ReadFile(*key)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	hosts, err := knownhosts.New(*known)
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", *port), &ssh.ClientConfig{
		Config:            ssh.Config{RekeyThreshold: *rekey},
		User:              *user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   hosts,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
}

func run(command string) (int, error) {
	client, err := connect()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return 0, err
	}
	// Not session.Stdin: Wait would wait for its end, which a shell's user does not give.
	input, err := session.StdinPipe()
	if err != nil {
		return 0, err
	}
	session.Stdout, session.Stderr = &firstOutput{session: session}, os.Stderr
	if *pty {
		if err := session.RequestPty(os.Getenv("TERM"), 24, 80, ssh.TerminalModes{ssh.ECHO: 1}); err != nil {
			return 0, err
		}
	}
	if command == "" {
		err = session.Shell()
	} else {
		err = session.Start(command)
	}
	if err != nil {
		return 0, err
	}
	go func() {
		io.Copy(input, os.Stdin)
		input.Close()
	}()
	return status(session.Wait())
}

func status(err error) (int, error) {
	var exit *ssh.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if exit.Signal() != "" {
		return 0, fmt.Errorf("signal %s", exit.Signal())
	}
	return exit.ExitStatus(), nil
}

// firstOutput is standard output that sends the signal when something was shown.
type firstOutput struct {
	session *ssh.Session
	once    sync.Once
}

func (o *firstOutput) Write(p []byte) (int, error) {
	if *signal != "" {
		o.once.Do(func() { o.session.Signal(ssh.Signal(*signal)) })
	}
	return os.Stdout.Write(p)
}
