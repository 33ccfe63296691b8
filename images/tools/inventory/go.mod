module stockade.test/tools/inventory

go 1.26.0

require (
	// The types of CycloneDX and their JSON, by its makers.
	github.com/CycloneDX/cyclonedx-go v0.10.0
	// What scanners look packages up by; its escaping is easily got wrong.
	github.com/package-url/packageurl-go v0.1.5
)
