// A provider that knows what the AWS provider offers and does nothing: Terraform checks a
// configuration against its schema, and `terraform test` mocks the rest. It stands in for the real
// one where no registry is reached.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"

	"peer/aws-schema/schema"
)

func main() {
	response, err := load()
	if err != nil {
		fmt.Fprintln(os.Stderr, "aws-schema:", err)
		os.Exit(1)
	}
	err = tf5server.Serve("aws-schema", func() tfprotov5.ProviderServer {
		return provider{schemas: response}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "aws-schema:", err)
		os.Exit(1)
	}
}

// Load reads the schemas that lie beside the program.
func load() (*tfprotov5.GetProviderSchemaResponse, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(program), "schemas.json"))
	if err != nil {
		return nil, err
	}
	var known schema.Provider
	if err := json.Unmarshal(text, &known); err != nil {
		return nil, err
	}
	// Terraform decodes all that is offered each time it starts a provider, once for every run of
	// `terraform test`: two thirds of its time. A caller that knows which types are named says so.
	if wanted := strings.Fields(os.Getenv("AWS_SCHEMA_TYPES")); len(wanted) > 0 {
		other := func(name string, _ schema.Block) bool { return !slices.Contains(wanted, name) }
		maps.DeleteFunc(known.Resources, other)
		maps.DeleteFunc(known.DataSources, other)
	}
	return answer(known)
}

// A provider answers what `validate` and mocked tests ask. All other calls would go to AWS: there
// is no such method behind the embedded interface, so Terraform reports that the plugin crashed.
type provider struct {
	tfprotov5.ProviderServer
	schemas *tfprotov5.GetProviderSchemaResponse
}

func (p provider) GetProviderSchema(
	context.Context, *tfprotov5.GetProviderSchemaRequest,
) (*tfprotov5.GetProviderSchemaResponse, error) {
	return p.schemas, nil
}

func (p provider) PrepareProviderConfig(
	_ context.Context, request *tfprotov5.PrepareProviderConfigRequest,
) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: request.Config}, nil
}

func (p provider) ValidateResourceTypeConfig(
	context.Context, *tfprotov5.ValidateResourceTypeConfigRequest,
) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (p provider) ValidateDataSourceConfig(
	context.Context, *tfprotov5.ValidateDataSourceConfigRequest,
) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

func (p provider) StopProvider(
	context.Context, *tfprotov5.StopProviderRequest,
) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}
