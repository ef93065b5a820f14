package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// What the file's form alone decides.
func TestDocuments(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", ""},
		{"comments", "# nothing\n\n", ""},
		{"header only", "---\n", ""},
		{"header and end", "---\nworkers: 2\n...\n# done\n", ""},
		{"byte order mark", "\ufeffworkers: 2\n", ""},
		{"no final line break", "workers: 2", ""},
		{"CRLF", "log:\r\n  level: info\r\nworkers: 2\r\n", ""},
		{"flow", "{workers: 2, log: {level: info}}", ""},
		{"quotes", "\"workers\": \"2\"\nmodels: 'it''s'\n", ""},
		{"section without settings", "log:\n  # level: debug\nhttp:\n", ""},
		{"tab before a comment", "workers: 2\t# two\n", ""},
		{"tab at the end", "workers: 2\t\n", ""},
		{"two documents", "workers: 2\n---\nworkers: 3\n", "p:2:1: a second document; write one in a file"},
		{"text after the end", "workers: 2\n...\nmodels: m\n", "p:3:1: a second document; write one in a file"},
		{"a list", "- workers\n", "p:1:1: holds a list; write settings as key: value"},
		{"a word", "workers\n", "p:1:1: holds text; write settings as key: value"},
		{"unbalanced", "listen: [a, b\nworkers: 2\n", "p:2:1: is not YAML: ',' or ']' must be specified"},
		{"no quotes around an address", "listen:\n  - [::]:8000\n", `p:2:9: is not YAML: value is not allowed in this context; put quotes around an address that begins with a bracket, as in "[::]:8000"`},
		{"indented too far", "workers: 2\n models: m\n", "p:1:10: is not YAML: mapping value is not allowed in this context"},
		{"tab indents", "log:\n\tlevel: info\n", `p:2:1: a tab; write spaces, or \t within double quotes`},
		{"tab in a value", "models: a\tb\n", `p:1:10: a tab; write spaces, or \t within double quotes`},
		{"bare carriage return", "workers: 2\rmodels: m\n", "p:1:11: a carriage return within a line; end lines with LF or CRLF"},
		{"control characters", "models: a\x00b\nadmin: \x1b[1m\n", "p:1:10: the control character U+0000; remove it\np:2:8: the control character U+001B; remove it"},
		{"not UTF-8", "models: ä\xe4\n", "p:1:10: is not UTF-8; save the file as UTF-8"},
		{"UTF-16", "\xff\xfew\x00", "p:1:1: is not UTF-8; save the file as UTF-8"},
		{
			"anchors and the like", "models: &m a\nadmin: *m\ncache: !!map {}\nlog:\n  <<: *m\n",
			"p:1:9: an anchor (&name) is not read here; write the settings out\n" +
				"p:2:8: an alias (*name) is not read here; write the settings out\n" +
				"p:3:8: a tag (!name) is not read here; write the settings out\n" +
				"p:5:3: a merge key (<<) is not read here; write the settings out\n" +
				"p:5:7: an alias (*name) is not read here; write the settings out",
		},
		{"directive", "%YAML 1.2\n---\nworkers: 2\n", "p:1:1: a directive (%NAME) is not read here; remove the line"},
		{"key without a value", "workers:\nmodels: m\n", "p:1:9: workers: has no value; write auto or a number from 1 to 1024, or remove the line"},
		{"number as key", "1: x\n", "p:1:1: 1: unknown key; known here are listen, workers, models, user, group, groups, predict, worker, timeouts, drain, concurrency, queue, layers, routes, lab, http, auth, inference, cache, reload, recycle, memory, tasks, pools, admin, ops, log"},
		{"number as text", "models: 42\n", ""},
		{"block text", "models: |\n  a\n", ""},
		{"octal", "worker: {max_crashes: 010}\n", `p:1:23: worker.max_crashes: "010" is not written as a plain decimal number; write a number from 1 to 1000`},
		{"fraction", "worker: {max_crashes: 1.5}\n", `p:1:23: worker.max_crashes: "1.5" is not a whole number; write a number from 1 to 1000`},
		{"boolean in a list", "worker: {command: [a, true]}\n", `p:1:23: worker.command[1]: is a boolean, not text; write "true"`},
		{"key in the wrong section", "http: {level: info}\n", "p:1:8: http.level: unknown key; did you mean log.level?"},
		{"odd key", "\"a\\x1b\\n\": 1\n", `p:1:1: a\x1b\n: unknown key; known here are listen, workers, models, user, group, groups, predict, worker, timeouts, drain, concurrency, queue, layers, routes, lab, http, auth, inference, cache, reload, recycle, memory, tasks, pools, admin, ops, log`},
		{"empty text", "models: \"\"\n", `p:1:9: models: "" is empty; write text that is not empty`},
		{"65 levels", strings.Repeat("[", 65) + strings.Repeat("]", 65), "p:1:65: is nested more than 64 levels deep"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var c Config
			if got := withoutExcerpts(t, Decode("p", []byte(test.in), &c)); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// withoutExcerpts returns the problems, a line each, and checks their form.
func withoutExcerpts(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		t.Fatalf("%T: %v", err, err)
	}
	var lines []string
	for _, p := range e.Problems {
		if p.Line > 0 && !strings.HasSuffix(p.Excerpt, "^") {
			t.Errorf("%s: excerpt %q", p, p.Excerpt)
		}
		p.Excerpt = ""
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Files that would cost a parser its stack, its memory or its patience.
func TestHostileFiles(t *testing.T) {
	deep := "is nested more than 64 levels deep"
	tests := []struct{ name, in, want string }{
		{"brackets", strings.Repeat("[", 100_000), deep},
		{"braces", strings.Repeat("{a: ", 100_000), deep},
		{"dashes", strings.Repeat("- ", 100_000), deep},
		{"question marks", strings.Repeat("? ", 100_000), deep},
		{"keys", strings.Repeat("a: ", 100_000), deep},
		{"anchors", strings.Repeat("&a ", 100_000), "from here on nothing was checked"},
		{"tags", strings.Repeat("!a ", 100_000), "not read here"},
		{"aliases", strings.Repeat("*a ", 100_000), "from here on nothing was checked"},
		{"unknown keys", unknownKeys(9_999), "from here on nothing was checked: 200 problems are enough for now"},
		{"one key", strings.Repeat("a: 1\n", 200_000), "has more than 10000 keys"},
		{"elements", "listen: [" + strings.Repeat("a,", 100_000) + "]", "from here on nothing was checked"},
		{"quotes", strings.Repeat("\"", 500_000), "is not YAML"},
		{"one line", "models: " + strings.Repeat("x", 1_000_000) + "\x00", "control character"},
		{"too large", strings.Repeat("#", 1<<20+1), "is larger than 1MiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var c Config
			got := withoutExcerpts(t, Decode("p", []byte(test.in), &c))
			if !strings.Contains(got, test.want) {
				t.Errorf("got %.300s, want %s", got, test.want)
			}
		})
	}
}

// unknownKeys returns a file with n of them.
func unknownKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "unknown%d: 1\n", i)
	}
	return b.String()
}

func TestExcerpt(t *testing.T) {
	tests := []struct {
		name, line string
		column     int
		want       string
	}{
		{"short", "a: b", 4, "    a: b\n       ^"},
		{"behind the end", "a:", 9, "    a:\n      ^"},
		{"tab", "\ta: b", 5, "     a: b\n        ^"},
		{"steers the terminal", "a: \x1b[1m\u202e", 4, "    a: \ufffd[1m\ufffd\n       ^"},
		{
			"long", strings.Repeat("a", 100) + "b" + strings.Repeat("c", 100), 101,
			"    ..." + strings.Repeat("a", 60) + "b" + strings.Repeat("c", 39) + "...\n" + strings.Repeat(" ", 67) + "^",
		},
	}
	for _, test := range tests {
		if got := excerpt(test.line, test.column); got != test.want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
}

// The values that the forms above leave.
func TestDocumentValues(t *testing.T) {
	var c Config
	err := Decode("p", []byte("models: |-\n  a\n  b\npredict: {model: 42}\nadmin: off\n"+
		"worker:\n  command: [\"a,b\", 'c d', \"\\t\\u00e9\", 7]\nlog: {file: \"\"}\nworkers: \"3\"\n"), &c)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Models: Models{Dir: "a\nb"}, Admin: "off", Workers: 3}
	want.Predict.Model = "42"
	want.Worker.Command = []string{"a,b", "c d", "\té", "7"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}
