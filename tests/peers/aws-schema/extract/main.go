// Extract reads the AWS provider's schema out of the bindings that the CDK for Terraform has for
// it: each resource is a folder of generated JavaScript, whose regular form holds the names and the
// types. It reads the package (a .tgz) from standard input and writes JSON.
package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"peer/aws-schema/schema"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "extract:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	sources, err := unpack(in)
	if err != nil {
		return err
	}
	provider := schema.Provider{
		Resources:   map[string]schema.Block{},
		DataSources: map[string]schema.Block{},
	}
	for _, source := range sources {
		source.addTo(&provider)
	}
	// A package of another form would give an empty schema, which accepts nothing and says little.
	if len(provider.Resources) < 1000 || len(provider.DataSources) < 400 {
		return fmt.Errorf("only %d resources and %d data sources: the package has another form",
			len(provider.Resources), len(provider.DataSources))
	}
	fmt.Fprintf(os.Stderr, "extract: %d resources, %d data sources\n",
		len(provider.Resources), len(provider.DataSources))
	return json.NewEncoder(out).Encode(provider)
}

// Unpack gives one source for each folder; a large one has its structures in files of their own.
func unpack(in io.Reader) (map[string]source, error) {
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	sources := map[string]source{}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return sources, nil
		} else if err != nil {
			return nil, err
		}
		inside, ok := strings.CutPrefix(header.Name, "package/lib/")
		if !ok || path.Ext(inside) != ".js" {
			continue
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		folder, _, _ := strings.Cut(inside, "/")
		sources[folder] += source(text)
	}
}
