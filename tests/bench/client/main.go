// The benchmark's own client: many logins, many idle sessions, the metadata door's and the kube
// door's load, and a screen to record. One
// static program, for it must run inside a jail, too. What it has measured is one line of JSON.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"
)

var (
	port    = flag.Int("port", 22, "of the SSH server at 127.0.0.1")
	users   = flag.String("users", "", "who log in, in turn")
	key     = flag.String("key", "", "private key")
	host    = flag.String("host", "", "the server's public key")
	ways    = flag.Int("ways", 1, "at one time")
	count   = flag.Int("count", 1, "sessions to open")
	seconds = flag.Int("seconds", 4, "to measure")
	url     = flag.String("url", "", "HOST:PORT/PATH of the credentials; for get a whole URL")
	ca      = flag.String("ca", "", "certificates of the authority")
	bearer  = flag.String("bearer", "", "file with a token")
	rate    = flag.Int("rate", 0, "requests a second; 0: as fast as answers come")
	token   = flag.Bool("token", false, "ask for an IMDSv2 token first")
	burst   = flag.Int("burst", 180, "requests a second at most")
	bytes   = flag.Int("bytes", 1<<20, "of screens to show")
)

func main() {
	verbs := map[string]func() error{"logins": logins, "idle": idle, "door": door, "frames": frames, "get": get}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "client: logins, idle, door, get or frames")
		os.Exit(64)
	}
	flag.CommandLine.Parse(os.Args[2:])
	if err := verbs[os.Args[1]](); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

// at is a share of what was sorted: 0.5 is the median.
func at(took []time.Duration, share float64) float64 {
	sort.Slice(took, func(a, b int) bool { return took[a] < took[b] })
	return float64(took[min(len(took)-1, int(float64(len(took))*share))].Microseconds()) / 1e3
}

func tell(what map[string]float64) error { return json.NewEncoder(os.Stdout).Encode(what) }

// frames shows screens of 24 coloured lines, one write each, as a program does that draws its whole screen anew.
func frames() error {
	var screens []string
	for n := range 64 {
		var screen strings.Builder
		for row := range 24 {
			fmt.Fprintf(&screen, "\x1b[%d;1H", row+1)
			for column := range 8 {
				fmt.Fprintf(&screen, "\x1b[%dm%-10d", 31+(n+row+column)%7, n*7919+row*101+column)
			}
		}
		screens = append(screens, screen.String())
	}
	for n, left := 0, *bytes; left > 0; n++ {
		screen := screens[n%len(screens)]
		if _, err := os.Stdout.WriteString(screen[:min(left, len(screen))]); err != nil {
			return err
		}
		left -= len(screen)
	}
	return nil
}

var errNothing = errors.New("nothing was measured")
