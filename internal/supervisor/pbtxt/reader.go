package pbtxt

import (
	"errors"
	"fmt"
	"strings"
)

// most is how many problems, and how many warnings, of one file are told.
const most = 50

// reader collects what is wrong with a file and what of it has no effect.
type reader struct {
	file               string
	problems, warnings []string
}

// where is p as an operator finds it.
func (r *reader) where(p place) string {
	if p == (place{}) {
		return r.file
	}
	return fmt.Sprintf("%s:%d:%d", r.file, p.line, p.column)
}

func (r *reader) fail(p place, key, format string, args ...any) {
	r.problems = tell(r.problems, r.where(p), key, fmt.Sprintf(format, args...))
}

func (r *reader) warn(p place, key, format string, args ...any) {
	r.warnings = tell(r.warnings, r.where(p), key, fmt.Sprintf(format, args...))
}

func tell(list []string, where, key, text string) []string {
	switch {
	case len(list) > most:
		return list
	case len(list) == most:
		return append(list, where+": and more from here on")
	case key != "":
		key += ": "
	}
	return append(list, where+": "+key+text)
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(r.problems, "\n"))
}

// rule says how a field is read. A field without read has no effect, and why says so; a
// field without both may be there and changes nothing.
type rule struct {
	repeated bool
	read     func(key string, v *value)
	why      string
}

// message reads the fields of the message that is called key, "" for the file.
func (r *reader) message(key string, fields []*entry, rules map[string]rule) {
	if key != "" {
		key += "."
	}
	first := map[string]int{}
	for _, e := range fields {
		rule, known := rules[e.Name]
		name := key + e.Name
		switch line := first[e.Name]; {
		case !known:
			r.warn(e.at(), name, "is no field that is known here, it has no effect")
			continue
		case line != 0 && !rule.repeated:
			r.fail(e.at(), name, "is set twice, first in line %d; remove one", line)
			continue
		case line == 0:
			first[e.Name] = e.at().line
		}
		if rule.why != "" && rule.read == nil {
			r.warn(e.at(), name, "%s", rule.why)
		}
		if rule.read == nil {
			continue
		}
		if !e.Value.isList() {
			rule.read(name, e.Value)
			continue
		}
		if !rule.repeated {
			r.fail(e.Value.at(), name, "is a list; write one value")
			continue
		}
		for _, item := range e.Value.Items {
			rule.read(name, item)
		}
	}
}

// kind names what v is, for a message.
func kind(v *value) string {
	switch {
	case v.isMessage():
		return "a message"
	case v.isList():
		return "a list"
	case len(v.Strings) > 0:
		return "text"
	}
	return v.Word
}

// section returns the fields of a message.
func (r *reader) section(key string, v *value, read func(fields []*entry)) {
	if !v.isMessage() {
		r.fail(v.at(), key, "is %s; write { … }", kind(v))
		return
	}
	read(v.Fields)
}

// text reads a string.
func (r *reader) text(into *string) rule {
	return rule{read: func(key string, v *value) {
		if len(v.Strings) == 0 {
			r.fail(v.at(), key, `is %s; write text in quotes`, kind(v))
			return
		}
		all := ""
		for _, s := range v.Strings {
			part, _ := unquote(s) // parse has seen to it that it can be
			all += part
		}
		if err := plain(all); err != nil {
			r.fail(v.at(), key, "%v", err)
			return
		}
		*into = all
	}}
}

// number reads a whole number from low to high.
func (r *reader) number(low, high int64, set func(n int64, p place)) rule {
	return rule{read: func(key string, v *value) {
		n, err := integer(v.Word)
		switch {
		case err != nil:
			r.fail(v.at(), key, "is %s; write a whole number from %d to %d", kind(v), low, high)
		case n < low || n > high:
			r.fail(v.at(), key, "%d is not from %d to %d; write a number that is", n, low, high)
		default:
			set(n, v.at())
		}
	}}
}

// numbers reads a list of them.
func (r *reader) numbers(low, high int64, into *[]int64) rule {
	one := r.number(low, high, func(n int64, _ place) { *into = append(*into, n) })
	one.repeated = true
	return one
}

// truth reads a boolean.
func (r *reader) truth(into *bool) rule {
	return rule{read: func(key string, v *value) {
		switch v.Word {
		case "true", "True", "t", "1":
			*into = true
		case "false", "False", "f", "0":
			*into = false
		default:
			r.fail(v.at(), key, "is %s; write true or false", kind(v))
		}
	}}
}
