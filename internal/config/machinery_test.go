package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// house has a setting of every shape, most of which Config does not have yet.
type house struct {
	Name   string             `yaml:"name" default:"home"`
	Rooms  []room             `yaml:"rooms"`
	Floors map[string]floor   `yaml:"floors"`
	Phones map[string]string  `yaml:"phones"`
	Limits map[string][]Bytes `yaml:"limits"`
	Door   door               `yaml:"door"`
	Waits  []time.Duration    `yaml:"waits" default:"1s,2s" check:"0|1s..1m"`
	Marks  [][]string         `yaml:"marks"`
	Scales []float32          `yaml:"scales"`
	Other  string             `json:"other"` // no setting
}

type room struct {
	Use  string `yaml:"use" check:"work|sleep"`
	Size Bytes  `yaml:"size" default:"20kB"`
	Key  string `yaml:"key" secret:"true"`
	Lit  bool   `yaml:"lit" default:"true"`
}

type floor struct {
	Height int    `yaml:"height" default:"3" check:"1..9"`
	Rooms  []room `yaml:"rooms"`
}

type door struct {
	Code string `yaml:"code" secret:"true"`
	Open bool   `yaml:"open"`
}

const houseFile = `name: villa
rooms:
  - {use: work}
  - use: sleep
    size: 1MiB
    lit: false
floors:
  ground:
    height: 4
  "2nd": {rooms: [{use: work, size: 5}]}
phones: {hall: "110", "no": x}
limits: {a: [1, 2KiB]}
waits: [0, 5s]
marks: [[a], [b, c]]
scales: [1, -0.5, 1e7, 16777216.0]
`

func houseValue() house {
	return house{
		Name:  "villa",
		Rooms: []room{{"work", 20000, "", true}, {"sleep", 1 << 20, "", false}},
		Floors: map[string]floor{
			"ground": {Height: 4},
			"2nd":    {3, []room{{"work", 5, "", true}}},
		},
		Phones: map[string]string{"hall": "110", "no": "x"},
		Limits: map[string][]Bytes{"a": {1, 2048}},
		Waits:  []time.Duration{0, 5 * time.Second},
		Marks:  [][]string{{"a"}, {"b", "c"}},
		Scales: []float32{1, -0.5, 1e7, 1 << 24},
	}
}

// printed returns what Print would write of l's struct.
func printed(g *loader) string {
	p := printer{origins: g.origins(), secrets: g.secrets}
	p.section(g.into, "", "")
	return p.String()
}

func TestEveryShape(t *testing.T) {
	var got house
	g := newLoader(reflectOf(&got))
	g.load(Sources{File: write(t, houseFile)})
	if len(g.problems) > 0 {
		t.Fatal(&Error{g.problems})
	}
	if want := houseValue(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	text := strings.ReplaceAll(printed(g), filepath.Dir(g.file)+"/", "")
	want := `name: villa # preforkd.yaml:1
rooms: [{use: work, size: 20kB, lit: true}, {use: sleep, size: 1MiB, lit: false}] # preforkd.yaml:3
floors:
  "2nd":
    height: 3 # default
    rooms: [{use: work, size: 5, lit: true}] # preforkd.yaml:10
  ground:
    height: 4 # preforkd.yaml:9
    rooms: [] # default
phones:
  hall: "110" # preforkd.yaml:11
  "no": x # preforkd.yaml:11
limits:
  a: [1, 2KiB] # preforkd.yaml:12
door:
  # code: not set
  open: false # default
waits: [0s, 5s] # preforkd.yaml:13
marks: [[a], [b, c]] # preforkd.yaml:14
scales: [1, -0.5, 10000000, 16777216] # preforkd.yaml:15
`
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	var again house
	if err := Decode("printed", []byte(text), &again); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("printed and read: %+v, %v", again, err)
	}
}

func TestProblemsOfEveryShape(t *testing.T) {
	const file = `rooms:
  - {use: play}
  - lit: 1
    colour: red
  - work
floors:
  ground: {height: 10}
  ground: {}
  top: [a]
  "": {}
  "a\nb\0": {}
phones: {hall: [1]}
limits: {a: [1, x]}
waits: [0, 500ms]
marks: [a]
scales: [.nan, .inf, 1e99, x, "1"]
Name: villa
other: x
`
	want := `p:2:11: rooms[0].use: "play" is not allowed; write work or sleep
p:3:10: rooms[1].lit: "1" is a number; write true or false
p:4:5: rooms[1].colour: unknown key; known here are use, size, key, key_file, lit
p:3:5: rooms[1].use: is missing; write work or sleep
p:5:5: rooms[2]: is text; write settings below it, indented
p:7:20: floors.ground.height: "10" is too large; write a number from 1 to 9
p:8:3: floors.ground: is set twice, first in line 7; remove one
p:9:8: floors.top: is a list; write settings below it, indented
p:10:3: floors.: is an empty name; write one
p:11:3: floors.a�b�: contains a control character; write another name
p:12:16: phones.hall: is a list; write text
p:13:17: limits.a[1]: "x" is not a size; write a size, such as 16MiB
p:14:12: waits[1]: "500ms" is not allowed; write 0 or a duration from 1s to 1m, such as 30s
p:15:9: marks[0]: is text, not a list; write ["a"]
p:16:10: scales[0]: ".nan" is not a finite number; write a number
p:16:16: scales[1]: ".inf" is not a finite number; write a number
p:16:22: scales[2]: "1e99" is not a finite number; write a number
p:16:28: scales[3]: "x" is not a finite number; write a number
p:16:31: scales[4]: "1" is text; write a number
p:17:1: Name: unknown key; did you mean name?
p:18:1: other: unknown key; known here are name, rooms, floors, phones, limits, door, waits, marks, scales`
	var h house
	if got := withoutExcerpts(t, Decode("p", []byte(file), &h)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A list replaces a list: the elements of a weaker source leave no trace.
func TestDecodeKeepsWhatIsNotSet(t *testing.T) {
	h := house{Name: "old", Rooms: []room{{"work", 1, "", true}, {"work", 2, "", true}}, Phones: map[string]string{"a": "1"}}
	if err := Decode("p", []byte("rooms: [{use: sleep}]\nphones: {b: x}\n"), &h); err != nil {
		t.Fatal(err)
	}
	want := house{Name: "old", Rooms: []room{{"sleep", 20000, "", true}}, Phones: map[string]string{"a": "1", "b": "x"}}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("got %+v", h)
	}
}

func TestSecretSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"door.code": "s3same\n", "file": "from-file\r\n", "env": "from-env", "flag": "a\nb\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	credentials := "CREDENTIALS_DIRECTORY=" + dir
	file := "door: {code_file: " + dir + "/file}\n"
	env := "PREFORKD_DOOR_CODE_FILE=" + dir + "/env"
	tests := []struct {
		name    string
		sources Sources
		file    string
		want    string
		printed string
	}{
		{"none", Sources{}, "", "", "  # code: not set\n"},
		{"no such credential", Sources{Env: []string{"CREDENTIALS_DIRECTORY=" + dir + "/x"}}, "", "", "  # code: not set\n"},
		{"credential", Sources{Env: []string{credentials}}, "", "s3same", "  # code: redacted, credential DIR/door.code\n"},
		{"file", Sources{Env: []string{credentials}}, file, "from-file", "  code_file: DIR/file # preforkd.yaml:1\n"},
		{"variable", Sources{Env: []string{credentials, env}}, file, "from-env", "  code_file: DIR/env # environment PREFORKD_DOOR_CODE_FILE\n"},
		{"flag", Sources{Env: []string{env}, Flags: []Flag{{"", "door.code_file", dir + "/flag"}}}, file, "a\nb", "  code_file: DIR/flag # flag --door-code-file\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var h house
			test.sources.File = write(t, test.file)
			g := newLoader(reflectOf(&h))
			g.load(test.sources)
			if len(g.problems) > 0 || len(g.warnings) > 0 {
				t.Fatal(g.problems, g.warnings)
			}
			if h.Door.Code != test.want {
				t.Errorf("secret %q, want %q", h.Door.Code, test.want)
			}
			text := strings.NewReplacer(filepath.Dir(g.file)+"/", "", `"`, "", dir, "DIR").Replace(printed(g))
			if !strings.Contains(text, test.printed) {
				t.Errorf("got\n%s\nwant %s", text, test.printed)
			}
			if _, ok := g.origins()["door.code"]; !ok {
				t.Errorf("origins %v", g.origins())
			}
			if test.want != "" && strings.Contains(text, test.want) {
				t.Errorf("the secret is printed:\n%s", text)
			}
		})
	}
}

// What was written inline is neither taken nor repeated.
func TestInlineSecretsAreRefused(t *testing.T) {
	const (
		file = "door:\n  code: hunter2\n  code_file: none\nrooms: 3\n"
		flow = "door: {code: hunter2, opne: 1}\n"
		long = "door: {code: \"x\n  hunter2\", opne: 1}\n"
		help = "door.code: is a secret, which is not written here; put it into a file and name that in door.code_file, or into $CREDENTIALS_DIRECTORY/door.code"
	)
	tests := []struct {
		name    string
		sources Sources
		file    string
		want    []string
	}{
		{"file", Sources{}, file, []string{"preforkd.yaml:2:3: " + help, "preforkd.yaml:3:14: door.code_file: read secret: open none: no such file or directory", "    rooms: 3"}},
		{"in one line", Sources{}, flow, []string{"preforkd.yaml:1:8: " + help, "preforkd.yaml:1:23: door.opne: unknown key; did you mean open?"}},
		{"in several lines", Sources{}, long, []string{"preforkd.yaml:1:8: " + help, "preforkd.yaml:2:13: door.opne: unknown key; did you mean open?"}},
		{"variable", Sources{Env: []string{"PREFORKD_DOOR_CODE=hunter2"}}, "", []string{"environment PREFORKD_DOOR_CODE: " + help}},
		{"flag", Sources{Flags: []Flag{{"--code", "door.code", "hunter2"}}}, "", []string{"flag --code: " + help}},
		{"no such file", Sources{Flags: []Flag{{"", "door.code_file", "/none"}}}, "", []string{"flag --door-code-file: door.code_file: read secret: open /none: no such file or directory"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var h house
			test.sources.File = write(t, test.file)
			g := newLoader(reflectOf(&h))
			g.load(test.sources)
			got := said(&Error{g.problems})
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("got\n%s\nwant %s", got, want)
				}
			}
			if strings.Contains(got, "hunter2") || h.Door.Code != "" {
				t.Errorf("the secret %q is told:\n%s", h.Door.Code, got)
			}
		})
	}
}

// An empty secret is a mistake of whoever wrote the file, and never a password.
func TestEmptySecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "door.code")
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var h house
	g := newLoader(reflectOf(&h))
	g.load(Sources{Env: []string{"CREDENTIALS_DIRECTORY=" + dir}})
	want := "environment CREDENTIALS_DIRECTORY: door.code: read secret: " + path + " is empty; write the secret into it"
	if got := said(&Error{g.problems}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What Print writes, Load reads, whatever the values are.
func TestPrintRoundTrip(t *testing.T) {
	odd := "a \"b\" # c: 'd'\\ \té\u200b\U0001f600\n"
	files := []string{
		"",
		"listen: [\"unix:/a?mode=0600&owner=b:c\", \"[::]:1\", fd:x]\nworkers: 3\nadmin: off\n",
		"worker: {command: [\"" + strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "\n", "\\n", "\t", "\\t").Replace(odd) + "\", \"\", true-ish, \"true\", \"42\", \"-\", \"~\", null-ish, 'null']}\n",
		"http: {max_body: 17179869184B, worker_header: true}\ntimeouts: {boot: 1h0m0.5s, drain: 24h}\nlog: {file: \"on\"}\n",
	}
	for _, file := range files {
		l, err := Load(Sources{File: write(t, file)})
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := l.Print(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Load(Sources{File: write(t, b.String())})
		if err != nil {
			t.Errorf("%s\n%v", b.String(), err)
			continue
		}
		if !reflect.DeepEqual(again.Config, l.Config) {
			t.Errorf("%s\ngot  %+v\nwant %+v", b.String(), again.Config, l.Config)
		}
	}
}

// broken fails every write.
type broken struct{}

var errBroken = errors.New("broken")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestPrintReportsErrors(t *testing.T) {
	l, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Print(broken{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

// A secret below a list has no fixed name, and is printed by its file all the same.
func TestSecretInAList(t *testing.T) {
	key := write(t, "s3same")
	var h house
	g := newLoader(reflectOf(&h))
	g.load(Sources{File: write(t, "rooms: [{use: work}, {use: sleep, key_file: "+key+"}]\n")})
	if len(g.problems) > 0 || h.Rooms[1].Key != "s3same" {
		t.Fatal(g.problems, h)
	}
	want := "rooms: [{use: work, size: 20kB, lit: true}, {use: sleep, size: 20kB, key_file: " + word(key) + ", lit: true}] # "
	if text := printed(g); !strings.Contains(text, want) || strings.Contains(text, "s3same") {
		t.Errorf("got\n%s\nwant %s", text, want)
	}
}

// A setting without a default, whose zero value is not allowed, must be written.
func TestMissing(t *testing.T) {
	type trunk struct {
		Kind string   `yaml:"kind" check:"oak|ash"`
		Tags []string `yaml:"tags" check:"nonempty"`
		Age  int      `yaml:"age" default:"1" check:"1..9"`
	}
	missing := "p:1:1: kind: is missing; write oak or ash\np:1:1: tags: is missing; write a list, such as [a, b]"
	tests := []struct{ name, in, want string }{
		{"empty file", "", missing},
		{"other settings", "age: 2\n", missing},
		{"one of two", "tags: [x]\n", "p:1:1: kind: is missing; write oak or ash"},
		{"wrong is not missing", "tags: []\nkind: elm\n", "p:1:7: tags: is empty; write a list, such as [a, b]\np:2:7: kind: \"elm\" is not allowed; write oak or ash"},
		{"all", "tags: [x]\nkind: oak\n", ""},
	}
	for _, test := range tests {
		var s trunk
		if got := withoutExcerpts(t, Decode("p", []byte(test.in), &s)); got != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
	s := trunk{Kind: "ash", Tags: []string{"x"}}
	if err := Decode("p", nil, &s); err != nil {
		t.Errorf("what into holds already is missing: %v", err)
	}
}
