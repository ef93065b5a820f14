package pbtxt

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/emptypb"

	"preforkd/internal/ipc"
)

var update = flag.Bool("update", false, "write testdata/*.txt again")

// describe is what Decode makes of a file, as text.
func describe(t *testing.T, file, name string, data []byte) string {
	t.Helper()
	var s ipc.ModelSettings
	warnings, err := Decode(file, name, data, &s)
	var b strings.Builder
	for _, w := range warnings {
		b.WriteString("warning: " + w + "\n")
	}
	if err != nil {
		return b.String() + err.Error() + "\n"
	}
	text, err := json.MarshalIndent(struct {
		ipc.ModelSettings
		Warmup []ipc.WarmupCase
	}{s, s.Warmup}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + string(text) + "\n"
}

// TestFiles compares with what testdata has beside each file.
func TestFiles(t *testing.T) {
	for _, name := range []string{"good", "bad"} {
		path := "testdata/" + name + ".pbtxt"
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := describe(t, path, "digits", data)
		want := strings.TrimSuffix(path, ".pbtxt") + ".txt"
		if *update {
			if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(want); err != nil || string(text) != got {
			t.Errorf("%s, %v:\n%s", want, err, got)
		}
	}
}

func TestSyntax(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"\ufeff# nothing\r\n":          "",
		"a: -inf b: - 5 c: 0x1F d: .5": "",
		"a [{}]":                       "",
		"a: []":                        "",

		"a":                         "m:1:2: the file ends early",
		"a:":                        "m:1:3: the file ends early",
		"a {\n b: 1\n":              "m:3:1: the file ends early",
		"a: [1":                     "m:1:6: the file ends early",
		"a: {}}":                    `m:1:6: "}" is out of place here`,
		"a: [1,]":                   `m:1:6: "," is out of place here`,
		"a: [1 2]":                  `m:1:7: "2" is out of place here`,
		"é: 1":                      "m:1:1: here begins nothing",
		"a: \"é\" b: \"c":           "m:1:11: here begins nothing",
		"a: 'x\ny'":                 "m:1:4: here begins nothing",
		"// a":                      "m:1:1: here begins nothing",
		"a: { >":                    "m:1:4: { ends with >",
		"a 1":                       "m:1:3: there is no colon after a; write a: and the value",
		"a [1]":                     "m:1:3: there is no colon after a",
		"a: [[1]]":                  "m:1:5: a list within a list",
		"a: 1x":                     "m:1:4: 1x is no number",
		"a: 09":                     "m:1:4: 09 is no number",
		"a: - x":                    "m:1:4: -x is no number",
		"a: 1_0":                    "m:1:4: 1_0 is no number",
		"a: 1 : 2":                  `m:1:6: ":" is out of place here`,
		"a: 1 2":                    `m:1:6: "2" is out of place here`,
		"[a]: 1":                    `m:1:1: "[" is out of place here`,
		"a: '\\q'":                  `m:1:4: unknown escape \q`,
		"a: '\\x'":                  "m:1:4: an escape without its digits",
		"a: '\\ud800'":              "m:1:4: an escape of no character",
		"a: 1\nb: \"\xff\"":         "m:2:5: is not UTF-8",
		"a: '\\xff'":                "",
		strings.Repeat("a {", 33):   "m:1:99: is nested more than 32 levels deep",
		strings.Repeat("#", 10<<20): "m: is larger than 1MiB",
	} {
		_, err := Decode("m", "digits", []byte(text), new(ipc.ModelSettings))
		if short := text[:min(len(text), 40)]; want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%q: %v\nwant %s", short, err, want)
		}
	}
}

// TestValues has what the files do not.
func TestValues(t *testing.T) {
	for text, want := range map[string]string{
		`name: ""`:                                    "",
		`name: "\303\251"`:                            `m:1:7: name: "é" is not what the directory is called, "digits"`,
		`name: "\xff"`:                                "m:1:7: name: its bytes are not UTF-8",
		`name: "a\001"`:                               "m:1:7: name: has the control character U+0001",
		`max_batch_size: 9999999999999999999`:         "m:1:17: max_batch_size: is 9999999999999999999; write a whole number",
		`max_batch_size: [1]`:                         "m:1:17: max_batch_size: is a list; write one value",
		`max_batch_size { }`:                          "m:1:16: max_batch_size: is a message; write a whole number",
		`max_batch_size: "1"`:                         "m:1:17: max_batch_size: is text",
		`version_policy: all`:                         "m:1:17: version_policy: is all; write { … }",
		`version_policy { specific { } }`:             "m:1:16: version_policy.specific: names no versions",
		`version_policy { specific { versions: 0 } }`: "m:1:39: version_policy.specific.versions: 0 is not from 1 to",
		`input { name: "a" data_type: TYPE_FP32 }`:    `m:1:7: input: "a" has no dims`,
		`model_warmup { }`:                            "m:1:14: model_warmup: has no inputs",
		`max_batch_size: 1 model_warmup { batch_size: 2 inputs { key: "x" value { data_type: TYPE_INT8 dims: 1 zero_data: true } } }`:          "batch_size: 2 is more than max_batch_size, 1",
		`model_warmup { inputs { key: "x" value { data_type: TYPE_INT8 dims: [99999, 99999, 99999, 99999, 99999, 99999] zero_data: true } } }`: "has more than 268435456 elements",
	} {
		_, err := Decode("m", "digits", []byte(text), new(ipc.ModelSettings))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
	many := strings.Repeat("max_batch_size: x ", 1000) + strings.Repeat("nothing: 1 ", 1000)
	warnings, err := Decode("m", "digits", []byte(many), new(ipc.ModelSettings))
	if n := strings.Count(err.Error(), "\n"); n != most || len(warnings) != most+1 {
		t.Errorf("%d problems, %d warnings", n, len(warnings))
	}
}

// FuzzDecode: whatever the file holds there is no panic; each message begins with the file;
// and what is read is of the format, as the library of protocol buffers has it.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"testdata/good.pbtxt", "testdata/bad.pbtxt"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(data)) { // short ones: the engine minimises what it finds
			f.Add([]byte(line))
		}
	}
	f.Add([]byte(`a: - 5, b: 1.5e-3f; c: 'x' "y" d < > e [ { }, < > ] f: [ a, -inf, 0x1 ]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s ipc.ModelSettings
		warnings, err := Decode("m.pbtxt", "digits", data, &s)
		for _, w := range warnings {
			if !strings.HasPrefix(w, "m.pbtxt:") {
				t.Errorf("warning without a place: %s", w)
			}
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "m.pbtxt:") {
				t.Errorf("error without a place: %v", err)
			}
			return
		}
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("not for a manifest: %v", err)
		}
		o := prototext.UnmarshalOptions{DiscardUnknown: true}
		if err := o.Unmarshal(data, &emptypb.Empty{}); err != nil {
			t.Errorf("the library refuses it: %v", err)
		}
	})
}
