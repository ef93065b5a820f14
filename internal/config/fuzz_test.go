package config

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"preforkd/internal/ipc"
)

// FuzzLoad: whatever a file holds, there is no panic, each problem lies within it,
// and what was accepted is printed so that it is read back.
func FuzzLoad(f *testing.F) {
	for _, path := range []string{"../../configs/preforkd.yaml", "testdata/problems.yaml"} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, text := range []string{
		"", "---\n", "a: 1\n...\n", "\ufefflog:\r\n  level: info\r\n", "listen: [\"[::]:1\", fd:x]", houseFile,
		"log: &a {level: info}\nhttp: *a\n<<: *a\n", "? a\n: b\n", "models: |\n  a\n", "models: >-\n a\n\n b\n",
		"%YAML 1.2\n---\na", "worker: {command: [a, \"\\x41\\u00e9\\U0001F600\", 'b''c']}", "!!map {a: b}",
		"[[[[{a: [", "- - - a", "models:\n- a\n", "workers: 0x1F", "log: {level}", "\"log\": {\"level\": \"info\"}",
		"door: {code: x, code_file: y}\n", "versions: all\nlimits: {max_body: 1MiB}", "versions: [1, 3]\nlabels: {a: 1}", "floors: {a: {rooms: [{use: work}]}}", "a: 'b\n\n c'\n", "log: # c\n  # d\n  file: a#b # c\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), fileSuffix) {
			return // it could name any file of this machine
		}
		var c Config
		setDefaults(reflectOf(&c), spec{})
		decodeAndCheck(t, data, &c)
		var h house
		decodeAndCheck(t, data, &h)
		_ = Decode("config.yaml", data, new(ipc.ModelSettings)) // which has short forms
	})
}

// decodeAndCheck reads data into the struct that into points to.
func decodeAndCheck(t *testing.T, data []byte, into any) {
	err := Decode("f", data, into)
	if err == nil {
		p := printer{}
		p.section(reflectOf(into), "", "")
		again := reflect.New(reflectOf(into).Type())
		if err := Decode("again", []byte(p.String()), again.Interface()); err != nil {
			t.Fatalf("%q is printed as\n%s\n%v", data, p.String(), err)
		}
		if want, got := printedValue(reflectOf(into)), printedValue(again.Elem()); got != want {
			t.Fatalf("%q\ngot\n%s\nwant\n%s", data, got, want)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		t.Fatalf("%T: %v", err, err)
	}
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	for _, p := range e.Problems {
		if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1 ||
			p.Text == "" || p.Source != "f" || strings.Contains(p.Text, "cannot be parsed") {
			t.Fatalf("%q: %+v", data, p)
		}
		if p.Excerpt != "" && strings.Count(p.Excerpt, "\n") != 1 {
			t.Fatalf("%q: excerpt %q", data, p.Excerpt)
		}
	}
}

// printedValue returns a struct's values without their sources.
func printedValue(v reflect.Value) string {
	p := printer{}
	p.section(v, "", "")
	return p.String()
}
