// Package schema is what is known of the AWS provider: written once by extract, read at each start.
package schema

// Provider holds the provider's own settings and all that it offers.
type Provider struct {
	Settings    Block
	Resources   map[string]Block
	DataSources map[string]Block
}

// Block is a resource, or a block in one.
type Block struct {
	Attributes map[string]Attribute `json:",omitempty"`
	Blocks     map[string]Nested    `json:",omitempty"`
}

// Attribute has a Type in Terraform's own notation, such as ["list","string"]. The package says
// what is required and what can only be read; whether something optional has a default that the
// provider computes, it does not say.
type Attribute struct {
	Type     any
	Required bool `json:",omitempty"`
	ReadOnly bool `json:",omitempty"`
}

// Nested is a block in a block; Kind is list, set, map or struct. One is how a list of at most one
// is known.
type Nested struct {
	Block
	Kind     string
	Required bool `json:",omitempty"`
	One      bool `json:",omitempty"`
}
