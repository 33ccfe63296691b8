package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var namesLicence = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-.].*)?$`)

const heavy, light = "================================================================", "----------------"

// What `go list` says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *module
}

type module struct {
	Path, Version, Dir string
	Replace            *module
}

// A text and all it holds for.
type licence struct {
	text    string
	holders []string
}

// Every text once: most modules share one of few. The package's own module comes first.
func licences(name string, out io.Writer) error {
	packages, err := list(name)
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	found := map[string]string{} // holder and file to text
	licensed := map[string]bool{}
	if err := take(strings.TrimSpace(string(root)), "the Go standard library", found); err != nil {
		return err
	}
	own := ""
	for _, one := range packages {
		if one.Standard {
			continue
		}
		if one.Module == nil || one.Module.Version == "" {
			return fmt.Errorf("%s is of no module with a version", one.ImportPath)
		}
		holder := one.Module.Path + " " + one.Module.Version
		if one.ImportPath == name {
			own = holder
		}
		before := len(found)
		if err := climb(one, holder, found); err != nil {
			return err
		}
		licensed[holder] = licensed[holder] || len(found) > before
	}
	for holder, has := range licensed {
		if !has {
			return fmt.Errorf("%s has no licence file", holder)
		}
	}
	if own == "" {
		return fmt.Errorf("%s is not what go list found", name)
	}
	return write(name, own, gather(own, found), out)
}

func list(name string) ([]listed, error) {
	command := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Standard,Module", name)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", name, err)
	}
	var packages []listed
	decoder := json.NewDecoder(bytes.NewReader(output))
	for {
		var one listed
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list %s: %w", name, err)
		}
		packages = append(packages, one)
	}
}

// Code taken over from elsewhere has its licence beside it, below the module's own.
func climb(one listed, holder string, found map[string]string) error {
	top := filepath.Clean(one.Module.Dir)
	for place := filepath.Clean(one.Dir); ; place = filepath.Dir(place) {
		inside, err := filepath.Rel(top, place)
		if err != nil || strings.HasPrefix(inside, "..") {
			return fmt.Errorf("%s does not lie in %s", one.Dir, top)
		}
		if err := take(place, strings.TrimSuffix(holder+": "+inside+"/", "./"), found); err != nil {
			return err
		}
		if place == top {
			return nil
		}
	}
}

func take(place, holder string, found map[string]string) error {
	entries, err := os.ReadDir(place)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !namesLicence.MatchString(entry.Name()) || filepath.Ext(entry.Name()) == ".go" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(place, entry.Name()))
		if err != nil {
			return err
		}
		found[holder+entry.Name()] = strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))
	}
	return nil
}

func gather(own string, found map[string]string) []licence {
	var all []licence
	at := map[string]int{}
	holders := make([]string, 0, len(found))
	for holder := range found {
		holders = append(holders, holder)
	}
	slices.SortFunc(holders, func(a, b string) int {
		mine := func(holder string) int {
			if strings.HasPrefix(holder, own+":") {
				return 0
			}
			return 1
		}
		if mine(a) != mine(b) {
			return mine(a) - mine(b)
		}
		return strings.Compare(a, b)
	})
	for _, holder := range holders {
		text := found[holder]
		if _, known := at[text]; !known {
			at[text] = len(all)
			all = append(all, licence{text: text})
		}
		all[at[text]].holders = append(all[at[text]].holders, holder)
	}
	return all
}

func write(name, own string, all []licence, out io.Writer) error {
	_, err := fmt.Fprintf(out, "%s of the Go module %s, with the modules that are linked into it.\n"+
		"Each text stands once, below the files it was found in.\n", name, own)
	for _, one := range all {
		if err == nil {
			_, err = fmt.Fprintf(out, "\n%s\n%s\n%s\n\n%s\n", heavy, strings.Join(one.holders, "\n"), light, one.text)
		}
	}
	return err
}
