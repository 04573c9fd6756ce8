package main

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"peer/aws-schema/schema"
)

var nestings = map[string]tfprotov5.SchemaNestedBlockNestingMode{
	"list":   tfprotov5.SchemaNestedBlockNestingModeList,
	"set":    tfprotov5.SchemaNestedBlockNestingModeSet,
	"map":    tfprotov5.SchemaNestedBlockNestingModeMap,
	"struct": tfprotov5.SchemaNestedBlockNestingModeSingle,
}

// Answer is the schema in the words of the plugin protocol.
func answer(known schema.Provider) (*tfprotov5.GetProviderSchemaResponse, error) {
	settings, err := block(known.Settings)
	if err != nil {
		return nil, err
	}
	// Nothing of the provider's own settings is computed.
	for _, attribute := range settings.Attributes {
		attribute.Computed = false
	}
	response := &tfprotov5.GetProviderSchemaResponse{Provider: &tfprotov5.Schema{Block: settings}}
	if response.ResourceSchemas, err = schemas(known.Resources); err != nil {
		return nil, err
	}
	response.DataSourceSchemas, err = schemas(known.DataSources)
	return response, err
}

func schemas(blocks map[string]schema.Block) (map[string]*tfprotov5.Schema, error) {
	all := make(map[string]*tfprotov5.Schema, len(blocks))
	for name, known := range blocks {
		one, err := block(known)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = &tfprotov5.Schema{Block: one}
	}
	return all, nil
}

func block(known schema.Block) (*tfprotov5.SchemaBlock, error) {
	answer := &tfprotov5.SchemaBlock{}
	for name, attribute := range known.Attributes {
		text, err := json.Marshal(attribute.Type)
		if err != nil {
			return nil, err
		}
		kind, err := tftypes.ParseJSONType(text) //nolint:staticcheck // the notation is Terraform's own
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		optional := !attribute.Required && !attribute.ReadOnly
		answer.Attributes = append(answer.Attributes, &tfprotov5.SchemaAttribute{
			Name: name, Type: kind, Required: attribute.Required, Optional: optional,
			Computed: !attribute.Required,
		})
	}
	for name, nested := range known.Blocks {
		inner, err := block(nested.Block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		answer.BlockTypes = append(answer.BlockTypes, nestedBlock(name, nested, inner))
	}
	return answer, nil
}

func nestedBlock(
	name string, known schema.Nested, inner *tfprotov5.SchemaBlock,
) *tfprotov5.SchemaNestedBlock {
	answer := &tfprotov5.SchemaNestedBlock{TypeName: name, Block: inner, Nesting: nestings[known.Kind]}
	if known.Kind == "list" || known.Kind == "set" {
		if known.Required {
			answer.MinItems = 1
		}
		if known.One {
			answer.MaxItems = 1
		}
	}
	return answer
}
