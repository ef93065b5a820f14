package cache

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

func TestWarmupIsReadStrictly(t *testing.T) {
	for text, want := range map[string]string{
		`[{"request":{}}]`: "",
		`[]`:               "",
		"[{\"request\":{},\"outputs\":{\"y\":[1,2]},\"tolerance\":0.5}]\n": "",
		``:                                   "EOF",
		`[{"request":{}}`:                    "EOF",
		`[{"request":{}}] []`:                "more follows",
		`[{"request":{}}]]`:                  "more follows",
		`{"request":{}}`:                     "cannot unmarshal object",
		`[{"reqest":{}}]`:                    "reqest",
		`[{}]`:                               "case 0 has no request",
		`[{"request":{}},{"request":null}]`:  "case 1 has no request",
		`[{"request":{},"tolerance":-1}]`:    "case 0",
		`[{"request":{},"tolerance":1e999}]`: "tolerance",
	} {
		_, err := decodeWarmup("m/warmup.json", []byte(text))
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "m/warmup.json") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzWarmup: what is accepted reaches a worker unchanged, through the manifest; what is not
// names the file.
func FuzzWarmup(f *testing.F) {
	f.Add([]byte(`[{"request":{"inputs":[]},"outputs":{"y":[1,-2.5e3]},"tolerance":1e-4}]`))
	f.Add([]byte(`[{"request":[1, 2]},{"request":"x","outputs":null}] `))
	f.Add([]byte(`[{"request":{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cases, err := decodeWarmup("m/warmup.json", data)
		if err != nil {
			if bad := (*ipc.Failure)(nil); !errors.As(err, &bad) || bad.Exit != ipc.ExitConfig || !strings.HasPrefix(bad.What, "m/warmup.json: ") {
				t.Fatalf("%v", err)
			}
			return
		}
		text, err := json.Marshal(ipc.ModelFile{Warmup: cases})
		if err != nil {
			t.Fatal(err)
		}
		var got ipc.ModelFile
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(got)
		if err != nil || string(again) != string(text) || len(got.Warmup) != len(cases) {
			t.Fatalf("%v: %s became %s", err, text, again)
		}
		for i := range cases {
			if cases[i].Tolerance != got.Warmup[i].Tolerance || len(cases[i].Outputs) > 0 && !reflect.DeepEqual(cases[i].Outputs, got.Warmup[i].Outputs) {
				t.Fatalf("%+v became %+v", cases[i], got.Warmup[i])
			}
		}
	})
}
