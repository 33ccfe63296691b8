// Validates a list of contents by CycloneDX's own schema: exits with 0, or says what is wrong.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/xeipuuv/gojsonschema"
)

func main() {
	if err := validate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func validate(path string) error {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	schemas := filepath.Join(strings.TrimSpace(string(module)), "schema")
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	loader := gojsonschema.NewSchemaLoader()
	for _, name := range []string{"spdx.schema.json", "jsf-0.82.schemax.json"} {
		text, err := os.ReadFile(filepath.Join(schemas, name))
		if err != nil {
			return err
		}
		address := "http://cyclonedx.org/schema/" + strings.Replace(name, "schemax", "schema", 1)
		if err := loader.AddSchema(address, gojsonschema.NewBytesLoader(text)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(schemas, "bom-"+cdx.SpecVersion1_6.String()+".schema.json"))
	if err != nil {
		return err
	}
	schema, err := loader.Compile(gojsonschema.NewBytesLoader(text))
	if err != nil {
		return fmt.Errorf("the schema: %w", err)
	}
	result, err := schema.Validate(gojsonschema.NewBytesLoader(document))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var wrong []error
	for _, one := range result.Errors()[:min(len(result.Errors()), 10)] {
		wrong = append(wrong, errors.New(one.String()))
	}
	return errors.Join(wrong...)
}
