package main

import (
	"regexp"
	"strings"

	"peer/aws-schema/schema"
)

// A source is the JavaScript of one folder.
type source string

var (
	constructs = regexp.MustCompile(
		`(?ms)^class (\w+) extends cdktf\.Terraform(Resource|DataSource|Provider) \{$(.*?)^\}`)
	references = regexp.MustCompile(`(?ms)^class (\w+)OutputReference extends cdktf\.ComplexObject \{$(.*?)^\}`)
	structures = regexp.MustCompile(`(?ms)^function (\w+)ToHclTerraform\(struct\) \{$(.*?)^\}`)
	kind       = regexp.MustCompile(`terraformResourceType: '(\w+)'`)
	arguments  = regexp.MustCompile(`(?s)synthesizeHclAttributes\(\) \{(.*?)\n    \}`)
	entries    = regexp.MustCompile(`(?s)\n +(\w+): \{\n +value: (.*?),\n` +
		` +isBlock: (true|false),\n +type: "(\w+)",\n +storageClassType: "(\w+)",\n`)
	fields  = regexp.MustCompile(`(?:this\._|struct\.)(\w+)`)
	resets  = regexp.MustCompile(`(?s) reset\w+\(\) \{\s+this\._(\w+)(?:\.internalValue)? = undefined;`)
	getters = regexp.MustCompile(`(?s) get \w+\(\) \{\s+return (\S*?)this\.get(\w*)Attribute\('(\w+)'\)`)
	complex = regexp.MustCompile(`this\._\w+ = new \w+\(this, "(\w+)"`)
)

// A reader knows the pieces of one source by their names.
type reader struct {
	structures, references map[string]string
}

func (s source) addTo(provider *schema.Provider) {
	found := constructs.FindAllStringSubmatch(string(s), -1)
	if len(found) == 0 {
		return
	}
	r := reader{map[string]string{}, map[string]string{}}
	for _, m := range structures.FindAllStringSubmatch(string(s), -1) {
		r.structures[m[1]] = m[2]
	}
	for _, m := range references.FindAllStringSubmatch(string(s), -1) {
		r.references[m[1]] = m[2]
	}
	for _, m := range found {
		base, class := m[2], m[3]
		listed := arguments.FindString(class)
		block := r.block(listed, class)
		readOnly(&block, class)
		switch name := kind.FindStringSubmatch(class); {
		case base == "Provider":
			// Terraform's own, not the provider's.
			delete(block.Attributes, "alias")
			provider.Settings = block
		case name != nil && base == "Resource":
			provider.Resources[name[1]] = block
		case name != nil:
			provider.DataSources[name[1]] = block
		}
	}
}

// Block reads the arguments that are listed; the class that has them shows which may be reset, and
// only what is optional may.
func (r reader) block(listed, class string) schema.Block {
	block := schema.Block{Attributes: map[string]schema.Attribute{}, Blocks: map[string]schema.Nested{}}
	optional := map[string]bool{}
	for _, m := range resets.FindAllStringSubmatch(class, -1) {
		optional[m[1]] = true
	}
	for _, m := range entries.FindAllStringSubmatch(listed, -1) {
		name, value, isBlock, shape, stored := m[1], m[2], m[3] == "true", m[4], m[5]
		required := false
		if field := fields.FindStringSubmatch(value); field != nil && class != "" {
			required = !optional[field[1]]
		}
		if !isBlock {
			block.Attributes[name] = schema.Attribute{Type: typeOf(shape, stored), Required: required}
			continue
		}
		structure := strings.TrimSuffix(stored, "List")
		if _, ok := r.structures[lower(structure)]; !ok {
			structure = strings.TrimSuffix(stored, "Map")
		}
		nested := r.block(r.structures[lower(structure)], r.references[structure])
		readOnly(&nested, r.references[structure])
		if shape == "set" {
			settle(nested)
		}
		block.Blocks[name] = schema.Nested{Block: nested, Kind: shape, Required: required,
			One: !strings.Contains(value, "listMapperHcl")}
	}
	return block
}

// ReadOnly adds what a class can be asked for and not be given.
func readOnly(block *schema.Block, class string) {
	add := func(name string, kind any) {
		_, argument := block.Attributes[name]
		_, nested := block.Blocks[name]
		if !argument && !nested {
			block.Attributes[name] = schema.Attribute{Type: kind, ReadOnly: true}
		}
	}
	for _, m := range getters.FindAllStringSubmatch(class, -1) {
		add(m[3], readType(m[2], strings.Contains(m[1], "tolist")))
	}
	// Lists of objects: their inside is not checked.
	for _, m := range complex.FindAllStringSubmatch(class, -1) {
		add(m[1], "dynamic")
	}
}

// Settle gives a string's type to what has none: Terraform refuses a set of blocks whose attributes
// may be anything.
func settle(block schema.Block) {
	for name, attribute := range block.Attributes {
		if attribute.Type == "dynamic" {
			attribute.Type = "string"
			block.Attributes[name] = attribute
		}
	}
	for _, nested := range block.Blocks {
		settle(nested.Block)
	}
}

func lower(name string) string { return strings.ToLower(name[:1]) + name[1:] }
