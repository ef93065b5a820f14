package config

import (
	"reflect"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// Some sections may be written as less than a section: a field with the tag short:"WORD",
// a bool, is set by the word in place of its section, and one with short:"list" by a list.
const shortList = "list"

// short writes node into v if it is such a short form of the section.
func (d *decoder) short(key string, node ast.Node, v reflect.Value) bool {
	text, kind := scalar(node)
	for _, f := range fieldsOf(v.Type()) {
		switch {
		case f.spec.short == shortList && kind == isList:
			d.list(key, node, v.Field(f.index), f.spec)
			return true
		case f.spec.short != "" && kind <= isWord && text == f.spec.short:
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
		if f.spec.short == shortList {
			text += "a list, or "
		} else {
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
