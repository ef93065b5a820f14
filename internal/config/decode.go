package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// decoder writes the tree of a document into structs.
type decoder struct {
	*document
	keys    []string              // every key that there is, for hints
	places  map[string]position   // where a key's value, or a list's element, was set
	secrets map[string]secretFile // by the secret's own key
}

// Decode reads a YAML file's bytes into the struct that into points to, strictly.
// What the file does not set keeps its value. The error is an *Error; then into
// holds what could be read.
func Decode(file string, data []byte, into any) error {
	d := newDecoder(file, reflectOf(into))
	d.decode(data, reflectOf(into))
	if problems := d.found(); len(problems) > 0 {
		return &Error{Problems: problems}
	}
	return nil
}

func newDecoder(file string, v reflect.Value) *decoder {
	d := &decoder{
		document: &document{file: file, lines: []string{""}, secret: map[int]bool{}},
		places:   map[string]position{},
		secrets:  map[string]secretFile{},
	}
	for _, s := range settingsOf(v, "") {
		d.keys = append(d.keys, s.key)
	}
	return d
}

// decode reads data into the struct v.
func (d *decoder) decode(data []byte, v reflect.Value) {
	top := d.parse(data)
	if top == nil {
		if len(d.problems) == 0 {
			d.missing("", position{1, 1}, nil, v)
		}
		return
	}
	if _, ok := pairs(top); !ok {
		if kindOf(top) != isNull {
			d.report(at(top), "", "holds "+kindOf(top).String()+"; write settings as key: value")
		}
		return
	}
	d.value("", top, v, spec{})
}

// value writes node into v, whatever its shape.
func (d *decoder) value(key string, node ast.Node, v reflect.Value, s spec) {
	switch shapeOf(v.Type()) {
	case section:
		if !d.short(key, node, v) {
			d.mapping(key, node, v, s)
		}
	case named:
		d.mapping(key, node, v, s)
	case list:
		d.list(key, node, v, s)
	case leaf:
		if v.Type() == addressType && kindOf(node) == isMapping {
			d.address(key, node, v)
			return
		}
		d.leaf(key, node, v, s)
	}
}

// mapping writes the entries of a section or of a map.
func (d *decoder) mapping(key string, node ast.Node, v reflect.Value, s spec) {
	entries, ok := pairs(node)
	if !ok {
		if kindOf(node) != isNull { // a section whose settings are all commented out
			d.wrongKind(key, node, v.Type(), s)
			return
		}
	}
	prefix := key
	if prefix != "" {
		prefix += "."
	}
	lines := map[string]int{}
	for _, e := range entries {
		if d.full() {
			return
		}
		name, ok := keyName(e.Key)
		if !ok {
			d.report(at(e.Key), key, "a key that is no plain word; write key: value")
			continue
		}
		if line := lines[name]; line != 0 {
			d.report(at(e.Key), prefix+name, fmt.Sprintf("is set twice, first in line %d; remove one", line))
			continue
		}
		lines[name] = at(e.Key).line
		if shapeOf(v.Type()) == named {
			d.entry(prefix+name, name, e, v)
		} else {
			d.field(prefix, name, e, v)
		}
	}
	if shapeOf(v.Type()) == section {
		d.missing(prefix, at(node), lines, v)
	}
}

// missing reports settings that have no default and must have a value.
func (d *decoder) missing(prefix string, p position, written map[string]int, v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		value := v.Field(f.index)
		if written[f.name] == 0 && f.spec.lacks(value) {
			d.report(p, prefix+f.name, "is missing; write "+wants(value.Type(), f.spec))
		}
	}
}

// entry writes one entry of a map.
func (d *decoder) entry(key, name string, e *ast.MappingValueNode, v reflect.Value) {
	if name == "" {
		d.report(at(e.Key), key, "is an empty name; write one")
		return
	}
	if err := checkString(name); err != nil {
		d.report(at(e.Key), key, err.Error()+"; write another name")
		return
	}
	n := reflect.New(v.Type().Elem()).Elem()
	setDefaults(n, spec{})
	d.value(key, e.Value, n, spec{})
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	v.SetMapIndex(reflect.ValueOf(name), n)
	d.places[key] = at(e.Key)
}

// field writes one setting of a section.
func (d *decoder) field(prefix, name string, e *ast.MappingValueNode, v reflect.Value) {
	fields := fieldsOf(v.Type())
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	if i < 0 {
		d.report(at(e.Key), prefix+strings.Trim(quote(name), `"`), "unknown key"+d.hint(prefix, name, fields))
		return
	}
	f := fields[i]
	switch f.spec.use {
	case inline:
		last := lastLine(e.Value)
		for line := at(e.Key).line; line <= last; line++ {
			d.secret[line] = true
		}
		d.report(at(e.Key), prefix+name, refuseInline(prefix+name))
	case byFile:
		d.secretFrom(prefix, name, e.Value, v.Field(f.index))
	case plain:
		d.value(f.key(prefix), e.Value, f.spec.valueOf(v.Field(f.index)), f.spec)
	}
}

// hint says which key the operator may have meant.
func (d *decoder) hint(prefix, name string, siblings []field) string {
	var names []string
	for _, f := range siblings {
		names = append(names, f.name)
	}
	if n := nearest(name, names); n != "" {
		return "; did you mean " + n + "?"
	}
	for _, k := range d.keys {
		i := strings.LastIndex(k, ".")
		switch {
		case i < 0:
		case k == name: // written with its dots
			return fmt.Sprintf("; write %s below %s:", k[i+1:], k[:i])
		case nearest(name, []string{k[i+1:]}) != "": // in the wrong section
			return "; did you mean " + k + "?"
		}
	}
	return "; known here are " + strings.Join(names, ", ")
}

// list writes a sequence.
func (d *decoder) list(key string, node ast.Node, v reflect.Value, s spec) {
	seq, ok := node.(*ast.SequenceNode)
	if !ok {
		d.wrongKind(key, node, v.Type(), s)
		return
	}
	if len(seq.Values) == 0 && s.nonempty {
		d.report(at(node), key, "is empty; write "+wants(v.Type(), s))
		return
	}
	values := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, n := range seq.Values {
		if d.full() {
			return
		}
		setDefaults(values.Index(i), spec{})
		d.value(fmt.Sprintf("%s[%d]", key, i), n, values.Index(i), s)
	}
	setList(v, values)
	d.places[key] = at(node)
}

// leaf writes a scalar.
func (d *decoder) leaf(key string, node ast.Node, v reflect.Value, s spec) {
	text, kind := scalar(node)
	if !fits(kind, text, v) {
		d.wrongKind(key, node, v.Type(), s)
		return
	}
	if err := setLeaf(v, s, text); err != nil {
		d.report(at(node), key, err.Error())
		return
	}
	d.places[key] = at(node)
}

// wrongKind reports a node that cannot be a value of type t.
func (d *decoder) wrongKind(key string, node ast.Node, t reflect.Type, s spec) {
	text, kind := scalar(node)
	p := at(node)
	switch {
	case kind == isNull:
		d.report(p, key, "has no value; write "+wants(t, s)+", or remove the line")
	case kind == isMapping || kind == isList || shapeOf(t) == section || shapeOf(t) == named:
		d.report(p, key, "is "+kind.String()+"; write "+wants(t, s))
	case shapeOf(t) == list:
		d.report(p, key, fmt.Sprintf("is %s, not a list; write [%s]", kind, quote(text)))
	case t.Kind() == reflect.String:
		d.report(p, key, fmt.Sprintf("is %s, not text; write %s", kind, quote(text)))
	default:
		d.report(p, key, fmt.Sprintf("%s is %s; write %s", quote(text), kind, wants(t, s)))
	}
}

// pairs returns the entries of a mapping.
func pairs(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// keyName returns a key's text; false if it is not written plainly or in quotes.
func keyName(n ast.Node) (string, bool) {
	text, kind := scalar(n)
	return text, kind < isMapping
}
