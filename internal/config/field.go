package config

import (
	"encoding"
	"reflect"
	"strings"
	"time"
)

// field is one key of a section.
type field struct {
	name  string // as in the file
	index int    // in its struct
	spec  spec
}

// spec is what a field's tags say about its value.
type spec struct {
	def      string // the default, as text
	allowed  []allowed
	nonempty bool
	atStart  bool // it holds from the start of the service
	use      use
	optional bool   // nobody need set it, though its zero value is not allowed
	size     bool   // an int64 that is written like Bytes
	short    string // how it is written in place of its section; see short.go
	quiet    bool   // it is printed only where it says something
}

// use tells the two keys of a secret from ordinary ones.
type use int

const (
	plain  use = iota
	inline     // a secret's own key: any value is refused
	byFile     // a secret's key with _file: its value is a path
)

// fileSuffix makes the key that names a secret's file.
const fileSuffix = "_file"

// fieldsOf returns the keys of a section in the order of its fields. A secret has
// two. A field without a yaml tag is no setting.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		s := spec{
			def: f.Tag.Get("default"), atStart: f.Tag.Get("holds") == "start",
			optional: f.Tag.Get("optional") == "true", size: f.Tag.Get("unit") == "bytes", short: f.Tag.Get("short"),
			quiet: f.Tag.Get("print") == "set",
		}
		if check := f.Tag.Get("check"); check == "nonempty" {
			s.nonempty = true
		} else if check != "" {
			s.allowed = parseAllowed(s.typeOf(elem(f.Type)), check)
		}
		if f.Tag.Get("secret") == "true" {
			fields = append(fields,
				field{name, i, spec{use: inline}},
				field{name + fileSuffix, i, spec{use: byFile}})
			continue
		}
		fields = append(fields, field{name, i, s})
	}
	return fields
}

// setting is one key that holds a value, in one struct.
type setting struct {
	key   string // log.level
	long  string // the key as a file has it, where that is longer: models.dir
	env   string // PREFORKD_LOG_LEVEL
	spec  spec
	value reflect.Value
}

// settingsOf returns the settings below the struct v whose keys are known
// beforehand: those of named entries and of lists of sections are not.
func settingsOf(v reflect.Value, prefix string) []setting {
	var all []setting
	for _, f := range fieldsOf(v.Type()) {
		key, value := f.key(prefix), v.Field(f.index)
		switch shapeOf(value.Type()) {
		case section:
			all = append(all, settingsOf(value, key+".")...)
		case named:
		case list:
			if shapeOf(value.Type().Elem()) == leaf {
				all = append(all, setting{key: key, env: envName(key), spec: f.spec, value: value})
			}
		case leaf:
			s := setting{key: key, env: envName(key), spec: f.spec, value: value}
			if long := prefix + f.name; long != key {
				s.long = long
			}
			all = append(all, s)
		}
	}
	return all
}

// envName returns the environment variable of a key.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// flagName returns the flag of a key.
func flagName(key string) string {
	return "--" + strings.NewReplacer(".", "-", "_", "-").Replace(key)
}

// shape is how a type is written.
type shape int

const (
	leaf    shape = iota // one scalar
	list                 // of any of these
	section              // a struct: keys known beforehand
	named                // a map: keys chosen by the operator
)

var (
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType = reflect.TypeFor[time.Duration]()
	bytesType    = reflect.TypeFor[Bytes]()
	addressType  = reflect.TypeFor[Address]()
	accountType  = reflect.TypeFor[Account]()
	limitType    = reflect.TypeFor[Limit]()
	proxyType    = reflect.TypeFor[Proxy]()
)

func shapeOf(t reflect.Type) shape {
	switch {
	case readsText(t):
		return leaf
	case t.Kind() == reflect.Struct:
		return section
	case t.Kind() == reflect.Map:
		return named
	case t.Kind() == reflect.Slice:
		return list
	}
	return leaf
}

// readsText says whether a type reads itself.
func readsText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// elem returns the type of one value: of a list's elements, else t.
func elem(t reflect.Type) reflect.Type {
	if shapeOf(t) == list {
		return t.Elem()
	}
	return t
}

// reflectOf returns what pointer points to.
func reflectOf(pointer any) reflect.Value { return reflect.ValueOf(pointer).Elem() }

// setDefaults writes the defaults of v and everything below it.
func setDefaults(v reflect.Value, s spec) {
	if shapeOf(v.Type()) == section {
		for _, f := range fieldsOf(v.Type()) {
			setDefaults(v.Field(f.index), f.spec)
		}
		return
	}
	if s.def == "" || s.use != plain {
		return
	}
	if bad := setText(v, s, s.def); bad != nil { // a tag of ours is wrong
		panic("config: default " + s.def + " " + bad[0].text)
	}
}
