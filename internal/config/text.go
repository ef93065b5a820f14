package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// flaw is what is wrong with a value, or with one element of a list.
type flaw struct {
	element int // -1: the whole
	text    string
}

// setText reads text, as a variable, a flag or a tag has it, into a leaf or a list
// of leaves. Nothing is set if there is a flaw.
func setText(v reflect.Value, s spec, text string) []flaw {
	if shapeOf(v.Type()) == leaf {
		if err := setLeaf(v, s, text); err != nil {
			return []flaw{{-1, err.Error()}}
		}
		return nil
	}
	var words []string
	if text != "" {
		words = strings.Split(text, ",")
	}
	if len(words) == 0 && s.nonempty {
		return []flaw{{-1, "is empty; write " + wants(v.Type(), s)}}
	}
	var flaws []flaw
	values := reflect.MakeSlice(v.Type(), len(words), len(words))
	for i, w := range words {
		if err := setLeaf(values.Index(i), s, strings.TrimSpace(w)); err != nil {
			flaws = append(flaws, flaw{i, err.Error()})
		}
	}
	if flaws == nil {
		setList(v, values)
	}
	return flaws
}

// setList sets a list; an empty one is nil, so that it equals one never set.
func setList(v, values reflect.Value) {
	if values.Len() == 0 {
		values = reflect.Zero(v.Type())
	}
	v.Set(values)
}

// setLeaf reads text into v if it is well-formed and allowed. The error reads
// "TEXT is wrong in this way; write this".
func setLeaf(v reflect.Value, s spec, text string) error {
	n := reflect.New(v.Type()).Elem()
	err := parseLeaf(n, text)
	if err == nil {
		err = s.permits(n)
	}
	if err != nil {
		return explain(text, err, v.Type(), s)
	}
	v.Set(n)
	return nil
}

// explain completes what a parser says about text. A parser that knows what to
// write instead says so itself, after a semicolon.
func explain(text string, err error, t reflect.Type, s spec) error {
	what := quote(text) + " " + err.Error()
	if strings.Contains(err.Error(), "; ") {
		return errors.New(what)
	}
	if s.nearest(text) != "" {
		return fmt.Errorf("%s; did you mean %s? write %s", what, s.nearest(text), wants(t, s))
	}
	return fmt.Errorf("%s; write %s", what, wants(t, s))
}

// parseLeaf reads text into v, whatever is allowed.
func parseLeaf(v reflect.Value, text string) error {
	if v.Type() == durationType {
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return err
	}
	if readsText(v.Type()) {
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return checkString(text)
	case reflect.Bool:
		switch text {
		case "true", "1":
			v.SetBool(true)
		case "false", "0":
			v.SetBool(false)
		default:
			return errors.New("is neither true nor false")
		}
		return nil
	case reflect.Int, reflect.Int64:
		n, err := parseInt(text)
		v.SetInt(n)
		return err
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return errors.New("is not a finite number")
		}
		v.SetFloat(f)
		return nil
	}
	panic("config: no setting can be of type " + v.Type().String())
}

// checkString refuses what no path, argument or name can hold.
func checkString(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		return errors.New("contains a control character")
	}
	return nil
}

// leafText is the inverse of parseLeaf.
func leafText(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return durationText(d)
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			panic(err) // none of our types can
		}
		return string(text)
	}
	if v.CanFloat() { // without an exponent, which not every reader of YAML takes for a number
		return strconv.FormatFloat(v.Float(), 'f', -1, v.Type().Bits())
	}
	return fmt.Sprint(v.Interface())
}

// quote returns s for a message: readable, and not longer than a line.
func quote(s string) string {
	if utf8.RuneCountInString(s) > 60 {
		return strconv.Quote(string([]rune(s)[:57]) + "...")
	}
	return strconv.Quote(s)
}
