package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// allowed is one alternative of a check: one value, or a range with both ends.
type allowed struct {
	low, high string // as written in the tag; the same for one value
	from, to  int64  // of numbers
}

// parseAllowed reads a check tag, such as auto|1..1024, for values of type t:
// text, or what Go holds as a whole number.
func parseAllowed(t reflect.Type, tag string) []allowed {
	var all []allowed
	for alternative := range strings.SplitSeq(tag, "|") {
		low, high, ok := strings.Cut(alternative, "..")
		if !ok {
			high = low
		}
		a := allowed{low: low, high: high}
		if t.Kind() != reflect.String {
			a.from, a.to = number(t, low), number(t, high)
		}
		all = append(all, a)
	}
	return all
}

// number returns text as a value of type t has it.
func number(t reflect.Type, text string) int64 {
	v := reflect.New(t).Elem()
	if err := parseLeaf(v, text); err != nil || !v.CanInt() {
		panic(fmt.Sprintf("config: check: %s is no %s", text, t))
	}
	return v.Int()
}

// permits says why v may not be used, if so.
func (s spec) permits(v reflect.Value) error {
	if s.nonempty && v.Kind() == reflect.String && v.Len() == 0 {
		return errors.New("is empty")
	}
	if len(s.allowed) == 0 {
		return nil
	}
	small, large := true, true
	for _, a := range s.allowed {
		if v.Kind() == reflect.String {
			if v.String() == a.low {
				return nil
			}
			small, large = false, false
			continue
		}
		n := v.Int()
		if a.from <= n && n <= a.to {
			return nil
		}
		small, large = small && n < a.from, large && n > a.to
	}
	switch {
	case small:
		return errors.New("is too small")
	case large:
		return errors.New("is too large")
	}
	return errors.New("is not allowed")
}

// lacks says whether v is a list that must not be empty, or a value that nobody
// has set and that may not be used as it is.
func (s spec) lacks(v reflect.Value) bool {
	if s.def != "" || s.use != plain || s.optional {
		return false
	}
	if shapeOf(v.Type()) == list {
		return s.nonempty && v.Len() == 0
	}
	return shapeOf(v.Type()) == leaf && v.IsZero() && s.permits(v) != nil
}

// nearest returns the allowed word that text resembles, or nothing.
func (s spec) nearest(text string) string {
	var words []string
	for _, a := range s.allowed {
		if a.low == a.high {
			words = append(words, a.low)
		}
	}
	return nearest(text, words)
}

// wants says what may be written for a value of type t.
func wants(t reflect.Type, s spec) string {
	switch shapeOf(t) {
	case section, named:
		return wantsShort(t) + "settings below it, indented"
	case list:
		return "a list, such as " + example(t.Elem())
	}
	noun, such := "a number", ""
	switch t {
	case addressType:
		return "HOST:PORT, unix:/PATH or fd:NAME"
	case durationType:
		noun, such = "a duration", ", such as 30s"
	case bytesType:
		noun, such = "a size", ", such as 16MiB"
	case accountType:
		return "a name or a number"
	case proxyType:
		return "an IP address, a network such as 10.0.0.0/8, or unix"
	case limitType:
		return "a number, a size such as 16MiB, or unlimited"
	}
	switch {
	case t.Kind() == reflect.Bool:
		return "true or false"
	case len(s.allowed) > 0:
		var words []string
		for _, a := range s.allowed {
			if a.low == a.high {
				words = append(words, a.low)
			} else {
				words = append(words, fmt.Sprintf("%s from %s to %s%s", noun, a.low, a.high, such))
			}
		}
		return either(words)
	case t.Kind() == reflect.String && s.nonempty:
		return "text that is not empty"
	case t.Kind() == reflect.String:
		return "text"
	}
	return noun + such
}

// example returns a list with elements of type t.
func example(t reflect.Type) string {
	switch {
	case t == addressType:
		return `["127.0.0.1:8000"]`
	case t == proxyType:
		return "[10.0.0.0/8]"
	case shapeOf(t) == section:
		return "[{key: value}]"
	}
	return "[a, b]"
}

// either joins words with commas and a final or.
func either(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
