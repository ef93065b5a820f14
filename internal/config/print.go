package config

import (
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Print writes the settings as a configuration file that Load reads back, each
// value followed by where it came from. A secret is represented by its file.
func (l *Loaded) Print(w io.Writer) error {
	p := printer{origins: l.Origins, secrets: l.secrets}
	p.section(reflectOf(&l.Config), "", "")
	_, err := io.WriteString(w, p.String())
	return err
}

// printer builds the text.
type printer struct {
	strings.Builder
	origins map[string]string
	secrets map[string]secretFile
}

// section writes the fields of a struct.
func (p *printer) section(v reflect.Value, prefix, indent string) {
	for _, f := range fieldsOf(v.Type()) {
		key := f.key(prefix)
		if f.spec.quiet && saysNothing(v.Field(f.index)) {
			continue
		}
		switch f.spec.use {
		case inline:
			p.secret(key, f.name, indent)
		case plain:
			p.value(v.Field(f.index), key, indent+f.name, indent)
		case byFile: // written with the secret's own key
		}
	}
}

// saysNothing tells whether v is as it would be if nobody had written it.
func saysNothing(v reflect.Value) bool {
	unset := reflect.New(v.Type()).Elem()
	setDefaults(unset, spec{})
	return reflect.DeepEqual(v.Interface(), unset.Interface())
}

// value writes one setting; head is its key with the indentation.
func (p *printer) value(v reflect.Value, key, head, indent string) {
	switch shapeOf(v.Type()) {
	case section:
		p.WriteString(head + ":\n")
		p.section(v, key+".", indent+"  ")
	case named:
		p.WriteString(head + ":\n")
		for _, k := range slices.Sorted(maps.Keys(names(v))) {
			p.value(names(v)[k], key+"."+k, indent+"  "+word(k), indent+"  ")
		}
	default:
		p.WriteString(head + ": " + p.flow(v, key) + " # " + p.origin(key) + "\n")
	}
}

// secret writes where a secret is, never what it is.
func (p *printer) secret(key, name, indent string) {
	s, ok := p.secrets[key]
	switch {
	case !ok:
		p.WriteString(indent + "# " + name + ": not set\n")
	case s.credential:
		p.WriteString(indent + "# " + name + ": redacted, " + p.origin(key) + "\n")
	default:
		p.WriteString(indent + name + fileSuffix + ": " + word(s.path) + " # " + p.origin(key) + "\n")
	}
}

// origin returns where key is from, in one line.
func (p *printer) origin(key string) string {
	if o, ok := p.origins[key]; ok {
		return visible(o) // a line break would end the comment
	}
	return "default"
}

// names returns the entries of a map with string keys.
func names(v reflect.Value) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for _, k := range v.MapKeys() {
		all[k.String()] = v.MapIndex(k)
	}
	return all
}

// flow returns a value in YAML's flow style, which lists are written in.
func (p *printer) flow(v reflect.Value, key string) string {
	var parts []string
	switch shapeOf(v.Type()) {
	case list:
		for i := range v.Len() {
			parts = append(parts, p.flow(v.Index(i), fmt.Sprintf("%s[%d]", key, i)))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case section:
		for _, f := range fieldsOf(v.Type()) {
			below := key + "." + f.name
			switch f.spec.use {
			case plain:
				parts = append(parts, f.name+": "+p.flow(v.Field(f.index), below))
			case byFile:
				if s, ok := p.secrets[strings.TrimSuffix(below, fileSuffix)]; ok {
					parts = append(parts, f.name+": "+word(s.path))
				}
			case inline:
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case named:
		for _, k := range slices.Sorted(maps.Keys(names(v))) {
			parts = append(parts, word(k)+": "+p.flow(names(v)[k], key+"."+k))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case leaf:
	}
	if v.CanInt() || v.CanFloat() || v.Kind() == reflect.Bool { // their texts need no quotes
		return leafText(v)
	}
	return word(leafText(v))
}

// word returns s as YAML text: in double quotes, unless every reader takes it for text.
func word(s string) string {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '/'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789_-.", r)) {
			return quoted(s)
		}
	}
	switch strings.ToLower(s) {
	case "", "true", "false", "yes", "no", "on", "off", "y", "n", "null":
		return quoted(s)
	}
	return s
}

// quoted returns s in YAML's double quotes, whose escapes are those of Go less \x
// of bytes, which valid UTF-8 never needs above 0x7f.
func quoted(s string) string { return strconv.Quote(s) }
