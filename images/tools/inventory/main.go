// Inventory tells what the image contains.
//
//	inventory licences PACKAGE     in a tool's module: the licences of everything that is linked into it
//	inventory bom NAME PROGRAM...  CycloneDX of Debian's packages, read from standard input as `images/trim` lists them,
//	                               and of Go programs, which name their modules themselves
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	err := run(os.Args[1:], os.Stdin, out)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inventory:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "licences":
		return licences(args[1], out)
	case len(args) >= 2 && args[0] == "bom":
		return bom(args[1], args[2:], in, out)
	}
	return fmt.Errorf("usage: inventory licences PACKAGE | bom NAME PROGRAM...")
}
