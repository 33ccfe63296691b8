package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// As long as a kubelet's.
const idle, create = 4 * time.Hour, 30 * time.Second

func (n *node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{ns}/{pod}/{c}", func(w http.ResponseWriter, r *http.Request) {
		if o, ok := options(w, r); ok {
			remotecommand.ServeExec(w, r, n, pod(r), "", r.PathValue("c"), r.Form["command"], o, idle, create,
				remotecommand.SupportedStreamingProtocols)
		}
	})
	mux.HandleFunc("/attach/{ns}/{pod}/{c}", func(w http.ResponseWriter, r *http.Request) {
		if o, ok := options(w, r); ok {
			remotecommand.ServeAttach(w, r, n, pod(r), "", r.PathValue("c"), o, idle, create,
				remotecommand.SupportedStreamingProtocols)
		}
	})
	mux.HandleFunc("/portForward/{ns}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		o, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, n, pod(r), "", o, idle, create, portforward.SupportedProtocols)
	})
	mux.HandleFunc("GET /containerLogs/{ns}/{pod}/{c}", n.logs)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	return mux
}

func pod(r *http.Request) string { return r.PathValue("ns") + "/" + r.PathValue("pod") }

func options(w http.ResponseWriter, r *http.Request) (*remotecommand.Options, bool) {
	o, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return o, err == nil
}

// ExecInContainer runs a command beside the container's process.
func (n *node) ExecInContainer(ctx context.Context, pod, _ string, name string, argv []string, in io.Reader,
	out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	c, err := n.findRunning(pod, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A command ends with its container.
	go func() {
		select {
		case <-c.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.dir, c.env, mortal()
	if tty {
		return onTerminal(cmd, in, out, resize, cancel)
	}
	// A pipe of our own, so that the end of the client's input reaches the command, and a command that ends does not
	// wait for input that never comes.
	if in != nil {
		w, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			io.Copy(w, in)
			w.Close()
		}()
	}
	if out != nil {
		cmd.Stdout = out
	}
	if errOut != nil {
		cmd.Stderr = errOut
	}
	if err := cmd.Start(); err != nil {
		return utilexec.CodeExitError{Err: err, Code: 126}
	}
	return exitError(cmd.Wait())
}

func onTerminal(cmd *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize, gone func()) error {
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	f, err := pty.Start(cmd)
	if err != nil {
		return utilexec.CodeExitError{Err: err, Code: 126}
	}
	defer f.Close()
	go sizes(f, resize)
	if in != nil {
		go func() {
			io.Copy(f, in)
			gone()
		}()
	}
	io.Copy(out, f) // ends with an error when the last process on the terminal has
	return exitError(cmd.Wait())
}

func exitError(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	code := exit.ExitCode()
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		code = 128 + int(s.Signal())
	}
	return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
}

func sizes(f *os.File, resize <-chan remotecommand.TerminalSize) {
	for s := range resize {
		pty.Setsize(f, &pty.Winsize{Rows: s.Height, Cols: s.Width})
	}
}

// AttachContainer joins the container's own output and, where it has one, its input.
func (n *node) AttachContainer(ctx context.Context, pod, _ string, name string, in io.Reader,
	out, _ io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := n.findRunning(pod, name)
	if err != nil {
		return err
	}
	sub := c.attach()
	defer c.detach(sub)
	if c.tty != nil {
		go sizes(c.tty, resize)
	}
	if in != nil && c.in != nil {
		go func() {
			io.Copy(c.in, in)
			if c.once && c.tty == nil {
				c.in.Close()
			}
		}()
	}
	for {
		select {
		case p := <-sub:
			if _, err := out.Write(p); err != nil {
				return nil
			}
		case <-c.done:
			return c.rest(sub, out)
		case <-ctx.Done():
			return nil
		}
	}
}

// rest writes what was printed before the end and not yet read.
func (c *container) rest(sub chan []byte, out io.Writer) error {
	for {
		select {
		case p := <-sub:
			if _, err := out.Write(p); err != nil {
				return nil
			}
		default:
			return nil
		}
	}
}

// PortForward joins the stream to the port of that number on this machine's loopback.
func (n *node) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		io.Copy(conn, stream)
		conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, conn)
	return err
}

func (n *node) logs(w http.ResponseWriter, r *http.Request) {
	c, err := n.find(pod(r), r.PathValue("c"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	query := r.URL.Query()
	from, at := begin(query), 0
	if tail, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		lines, _ := c.since(0)
		at = max(0, len(lines)-tail)
	}
	out := bufio.NewWriter(w)
	for {
		// Looked at first: what came before the end is then among the lines.
		over := !c.running()
		lines, news := c.since(at)
		for _, l := range lines {
			if l.at.Before(from) {
				continue
			}
			if query.Get("timestamps") == "true" {
				fmt.Fprintf(out, "%s ", l.at.Format(time.RFC3339Nano))
			}
			out.Write(l.text)
		}
		at += len(lines)
		out.Flush()
		w.(http.Flusher).Flush()
		if over || query.Get("follow") != "true" {
			return
		}
		select {
		case <-news:
		case <-c.done:
		case <-r.Context().Done():
			return
		}
	}
}

func begin(query url.Values) time.Time {
	if seconds, err := strconv.Atoi(query.Get("sinceSeconds")); err == nil {
		return time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	from, _ := time.Parse(time.RFC3339, query.Get("sinceTime"))
	return from
}
