package main

import "strings"

var simple = map[string]string{
	"string": "string", "number": "number", "boolean": "bool", "any": "dynamic",
}

// TypeOf turns a shape (simple, list, set, map) and a class (stringList, stringMapList) into
// Terraform's notation of a type.
func typeOf(shape, class string) any {
	if shape == "simple" {
		return scalar(class)
	}
	return []any{shape, element(strings.TrimSuffix(strings.TrimSuffix(class, "List"), "Map"))}
}

func element(class string) any {
	if inner, ok := strings.CutSuffix(class, "List"); ok {
		return []any{"list", scalar(inner)}
	}
	if inner, ok := strings.CutSuffix(class, "Map"); ok {
		return []any{"map", scalar(inner)}
	}
	return scalar(class)
}

func scalar(class string) any {
	if name, ok := simple[class]; ok {
		return name
	}
	return "dynamic"
}

// ReadType is the type of what getStringAttribute and its like return. A set is turned into a list
// on the way out, which is how it is told from one.
func readType(getter string, isSet bool) any {
	shape := "list"
	if isSet {
		shape = "set"
	}
	switch getter {
	case "String", "Number", "Boolean":
		return scalar(strings.ToLower(getter))
	case "List":
		return []any{shape, "string"}
	case "NumberList":
		return []any{shape, "number"}
	case "StringMap", "NumberMap", "BooleanMap":
		return []any{"map", scalar(strings.ToLower(strings.TrimSuffix(getter, "Map")))}
	}
	return "dynamic"
}
