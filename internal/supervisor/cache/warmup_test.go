package cache

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

func TestWarmup(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: "",
		`[{"request":{"inputs":[]},"outputs":{"label":[0,1.5]},"tolerance":1e-4}, {"request": {}}]` + "\n": "",

		``:                                "w.json:1:1: it is empty",
		`[{`:                              "w.json:1:3: it ends early",
		`null`:                            "w.json: it is null, not a list",
		`{}`:                              "w.json:1:2: object is out of place here",
		"[{\n\"request\": {},}]":          "w.json:2:15: invalid character '}'",
		`[{"requests":{}}]`:               `w.json: json: unknown field "requests"`,
		`[{"request":{}}] x`:              "something follows the list",
		`[{"request":{}}][]`:              "something follows the list",
		`[{"request":{}},{}]`:             `w.json, request 1: it has no "request"`,
		`[{"request":null}]`:              `w.json, request 0: "request" is no object`,
		`[{"request":[1]}]`:               `w.json, request 0: "request" is no object`,
		`[{"request":{},"tolerance":-1}]`: `w.json, request 0: "tolerance" is -1, less than 0`,
		`[{"request":{},"outputs":{"y":["NaN"]}}]`: "outputs: string is out of place here",
	} {
		cases, err := parseWarmup("w.json", []byte(text))
		if want == "" {
			if err != nil || strings.Count(text, "request") != len(cases) {
				t.Errorf("%s: %d cases, %v", text, len(cases), err)
			}
			continue
		}
		var f *ipc.Failure
		if !errors.As(err, &f) || f.Exit != ipc.ExitConfig || f.Try == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}

// FuzzWarmup: whatever the file holds, the answer is cases that can be sent to a worker,
// or an error that names the file.
func FuzzWarmup(f *testing.F) {
	f.Add([]byte(`[{"request":{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]},"outputs":{"y":[0]},"tolerance":0.1}]`))
	f.Add([]byte("[{\"request\": {}},\n {\"tolerance\": -1}]"))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cases, err := parseWarmup("w.json", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "w.json") {
				t.Errorf("the error does not begin with the file: %v", err)
			}
			return
		}
		for i := range cases {
			cases[i].From = ""
		}
		text, err := json.Marshal(cases)
		if err != nil {
			t.Fatalf("not for a manifest: %v", err)
		}
		again, err := parseWarmup("w.json", text)
		if err != nil || len(again) != len(cases) {
			t.Errorf("%d cases became %d, %v", len(cases), len(again), err)
		}
		for i, c := range cases {
			if c.Tolerance < 0 || !json.Valid(c.Request) {
				t.Errorf("case %d: %+v", i, c)
			}
		}
	})
}
