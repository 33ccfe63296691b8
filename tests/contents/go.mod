module stockade.test/contents

go 1.26.0

require (
	// Has CycloneDX's own schemas in its module.
	github.com/CycloneDX/cyclonedx-go v0.10.0
	// What cyclonedx-go's own tests validate with.
	github.com/xeipuuv/gojsonschema v1.2.0
)

require (
	github.com/xeipuuv/gojsonpointer v0.0.0-20180127040702-4e3ac2762d5f // indirect
	github.com/xeipuuv/gojsonreference v0.0.0-20180127040603-bd5ef7bd5415 // indirect
)
