package main

import (
	"bufio"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/package-url/packageurl-go"
)

// Components in the order of their names, each once, and what each is made of.
type contents struct {
	components map[string]cdx.Component
	made       map[string][]string
}

func bom(name string, programs []string, debian io.Reader, out io.Writer) error {
	when, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	const image = "image"
	all := contents{components: map[string]cdx.Component{}, made: map[string][]string{}}
	// By which scanners know whose packages these are.
	all.add(image, cdx.Component{BOMRef: "system", Type: cdx.ComponentTypeOS, Name: "debian", Version: "12"})
	if err := all.packages(image, debian); err != nil {
		return err
	}
	for _, program := range programs {
		if err := all.program(image, program); err != nil {
			return fmt.Errorf("%s: %w", program, err)
		}
	}
	told := cdx.NewBOM()
	told.Metadata = &cdx.Metadata{
		Timestamp: time.Unix(when, 0).UTC().Format(time.RFC3339),
		Component: &cdx.Component{BOMRef: image, Type: cdx.ComponentTypeContainer, Name: name},
	}
	all.tell(told)
	return cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(told, cdx.SpecVersion1_6)
}

// A line is name, version, architecture, source and the source's version.
func (all *contents) packages(image string, lines io.Reader) error {
	scanner := bufio.NewScanner(lines)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) != 5 {
			return fmt.Errorf("not a package: %q", scanner.Text())
		}
		name, version := fields[0], fields[1]
		qualifiers := map[string]string{"arch": fields[2], "distro": "debian-12"}
		if fields[3] != name || fields[4] != version {
			qualifiers["upstream"] = fields[3] + "@" + fields[4]
		}
		purl := packageurl.NewPackageURL(packageurl.TypeDebian, "debian", name, version,
			packageurl.QualifiersFromMap(qualifiers), "")
		all.add(image, cdx.Component{Type: cdx.ComponentTypeLibrary, Name: name, Version: version,
			PackageURL: purl.ToString(), Supplier: &cdx.OrganizationalEntity{Name: "Debian"}})
	}
	return scanner.Err()
}

func (all *contents) program(image, path string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	bytes, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(bytes)
	own := info.Main
	if own.Version == "" || own.Version == "(devel)" {
		return fmt.Errorf("not built from a version of %s", info.Path)
	}
	below := strings.TrimPrefix(strings.TrimPrefix(info.Path, own.Path), "/")
	name := filepath.Base(path)
	program := all.add(image, cdx.Component{Type: cdx.ComponentTypeApplication, Name: name, Version: own.Version,
		BOMRef: "program:" + name, PackageURL: golang(own.Path, own.Version, below),
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}})
	all.library(program, "stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	for _, dependency := range info.Deps {
		if dependency.Replace != nil {
			dependency = dependency.Replace
		}
		all.library(program, dependency.Path, dependency.Version)
	}
	return nil
}

func golang(path, version, below string) string {
	space, name := "", path
	if cut := strings.LastIndex(path, "/"); cut >= 0 {
		space, name = path[:cut], path[cut+1:]
	}
	return packageurl.NewPackageURL(packageurl.TypeGolang, space, name, version, nil, below).ToString()
}

func (all *contents) library(user, path, version string) {
	all.add(user, cdx.Component{Type: cdx.ComponentTypeLibrary, Name: path, Version: version,
		PackageURL: golang(path, version, "")})
}

func (all *contents) add(user string, one cdx.Component) string {
	if one.BOMRef == "" {
		one.BOMRef = one.PackageURL
	}
	all.components[one.BOMRef] = one
	all.made[user] = append(all.made[user], one.BOMRef)
	return one.BOMRef
}

func (all *contents) tell(told *cdx.BOM) {
	components := []cdx.Component{}
	for _, one := range all.components {
		components = append(components, one)
	}
	slices.SortFunc(components, func(a, b cdx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	dependencies := []cdx.Dependency{}
	for ref, parts := range all.made {
		slices.Sort(parts)
		parts = slices.Compact(parts)
		dependencies = append(dependencies, cdx.Dependency{Ref: ref, Dependencies: &parts})
	}
	slices.SortFunc(dependencies, func(a, b cdx.Dependency) int { return strings.Compare(a.Ref, b.Ref) })
	told.Components = &components
	told.Dependencies = &dependencies
}
