package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Some sections may be written as less than a section: a field with the tag short:"WORD",
// a bool, is set by the word in place of its section, and one with short:"list" by a list. One
// with short:"text" is set by any text, and has the section's key as its own.
const (
	shortList = "list"
	shortText = "text"
)

// key returns the key of f in a section whose keys begin with prefix.
func (f field) key(prefix string) string {
	if f.spec.short == shortText {
		return strings.TrimSuffix(prefix, ".")
	}
	return prefix + f.name
}

// short writes node into v if it is such a short form of the section.
func (d *decoder) short(key string, node ast.Node, v reflect.Value) bool {
	text, kind := scalar(node)
	for _, f := range fieldsOf(v.Type()) {
		switch {
		case f.spec.short == shortList && kind == isList:
			d.list(key, node, v.Field(f.index), f.spec)
			return true
		case f.spec.short == shortText && kind < isMapping && kind != isNull:
			d.leaf(key, node, v.Field(f.index), f.spec)
			return true
		case f.spec.short != "" && f.spec.short != shortText && kind <= isWord && text == f.spec.short:
			v.Field(f.index).SetBool(true)
			d.places[key] = at(node)
			return true
		}
	}
	return false
}

// wantsShort names the short forms of a section of type t, for a message.
func wantsShort(t reflect.Type) (text string) {
	if shapeOf(t) != section {
		return ""
	}
	fields := fieldsOf(t)
	for _, f := range slices.DeleteFunc(fields, func(f field) bool { return f.spec.short == "" }) {
		switch f.spec.short {
		case shortList:
			text += "a list, or "
		case shortText:
			text += "text, or "
		default:
			text += f.spec.short + ", or "
		}
	}
	return text
}

// typeOf returns how a field of type t is written.
func (s spec) typeOf(t reflect.Type) reflect.Type {
	if s.size {
		return bytesType
	}
	return t
}

// valueOf returns the field v as typeOf has it: the packages that both processes share
// cannot name Bytes.
func (s spec) valueOf(v reflect.Value) reflect.Value {
	if s.size {
		return v.Addr().Convert(reflect.PointerTo(bytesType)).Elem()
	}
	return v
}
