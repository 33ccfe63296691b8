package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
)

// container is one process of a pod, and what it has printed.
type container struct {
	dir     string
	env     []string
	cmd     *exec.Cmd
	tty     *os.File       // where the pod asked for a terminal
	in      io.WriteCloser // where it asked for an input
	once    bool           // the input ends with the first client that was attached
	failed  error          // it never started
	started time.Time
	ended   time.Time
	done    chan struct{}
	code    int

	mu    sync.Mutex
	lines []line
	part  []byte
	subs  map[chan []byte]bool
	news  chan struct{} // closed and renewed at each line
}

type line struct {
	at   time.Time
	text []byte
}

// Write keeps what the process prints, and passes it to who is attached.
func (c *container) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for sub := range c.subs {
		select {
		case sub <- bytes.Clone(p):
		default: // an attached client that does not read loses output, the container goes on
		}
	}
	c.part = append(c.part, p...)
	for {
		i := bytes.IndexByte(c.part, '\n')
		if i < 0 {
			return len(p), nil
		}
		c.lines = append(c.lines, line{time.Now().UTC(), bytes.Clone(c.part[:i+1])})
		c.part = c.part[i+1:]
		close(c.news)
		c.news = make(chan struct{})
	}
}

func (c *container) attach() chan []byte {
	sub := make(chan []byte, 256)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[sub] = true
	return sub
}

func (c *container) detach(sub chan []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.subs, sub)
}

// since gives the lines after the first `at`, and what is closed when there are more.
func (c *container) since(at int) ([]line, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[min(at, len(c.lines)):], c.news
}

func (c *container) kill() {
	if c.failed == nil {
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	}
}

func (c *container) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return c.failed == nil
	}
}

// start runs a container's command; one that cannot be started says why in its status.
func start(dir string, spec corev1.Container, host string) *container {
	c := &container{dir: dir, once: spec.StdinOnce, started: time.Now(), done: make(chan struct{}),
		subs: map[chan []byte]bool{}, news: make(chan struct{})}
	c.env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "HOSTNAME=" + host}
	for _, e := range spec.Env {
		c.env = append(c.env, e.Name+"="+e.Value)
	}
	argv := append(append([]string{}, spec.Command...), spec.Args...)
	if len(argv) == 0 {
		argv = []string{"sleep", "infinity"}
	}
	c.cmd = exec.Command(argv[0], argv[1:]...)
	c.cmd.Dir, c.cmd.Env, c.cmd.SysProcAttr = dir, c.env, mortal()
	if c.failed = os.MkdirAll(dir, 0o700); c.failed == nil {
		c.failed = c.run(spec)
	}
	if c.failed != nil {
		close(c.done)
		return c
	}
	go func() {
		c.cmd.Wait()
		c.code, c.ended = c.cmd.ProcessState.ExitCode(), time.Now()
		close(c.done)
	}()
	return c
}

// mortal is for processes that end with the node, however it ends.
func mortal() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

func (c *container) run(spec corev1.Container) (err error) {
	if spec.TTY {
		if c.tty, err = pty.Start(c.cmd); err != nil {
			return err
		}
		c.in = c.tty
		go io.Copy(c, c.tty)
		return nil
	}
	c.cmd.SysProcAttr.Setpgid = true
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if spec.Stdin {
		if c.in, err = c.cmd.StdinPipe(); err != nil {
			return err
		}
	}
	return c.cmd.Start()
}
