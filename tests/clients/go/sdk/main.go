// Credentials and region that aws-sdk-go-v2 finds by itself.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
)

func main() {
	ctx := context.Background()
	settings, err := config.LoadDefaultConfig(ctx, config.WithEC2IMDSRegion())
	if err != nil {
		fail(err)
	}
	found, err := settings.Credentials.Retrieve(ctx)
	if err != nil {
		fail(err)
	}
	fmt.Println(found.AccessKeyID, settings.Region, found.Expires.UTC().Format(time.RFC3339))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
