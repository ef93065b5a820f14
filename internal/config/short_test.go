package config

import (
	"strings"
	"testing"
	"time"

	"preforkd/internal/ipc"
)

// TestModelSettings reads what a model's config.yaml may hold.
func TestModelSettings(t *testing.T) {
	read := func(text string) (s ipc.ModelSettings, err error) {
		err = Decode("m/config.yaml", []byte(text), &s)
		return s, err
	}
	s, err := read("labels: {stable: 1, canary: 3}\nlimits: {timeout: 2s, max_body: 1MiB}\nmax_batch_size: 8\n")
	if err != nil || s.Labels["stable"] != "1" || s.Labels["canary"] != "3" || s.MaxBatchSize != 8 ||
		s.Limits.Timeout != 2*time.Second || s.Limits.MaxBody != 1<<20 {
		t.Errorf("%+v, %v", s, err)
	}
	for text, want := range map[string]ipc.VersionPolicy{
		"versions: all":            {All: true},
		"versions: {latest: 2}":    {Latest: 2},
		"versions: [1, 3]":         {Specific: []string{"1", "3"}},
		"versions:\n- 2\n":         {Specific: []string{"2"}},
		"versions: {all: true}":    {All: true},
		"versions: {specific: []}": {},
		"limits: {timeout: 1s}":    {},
		"limits: {max_body: 1KiB}": {},
	} {
		s, err := read(text)
		if got := s.Versions; err != nil || got.All != want.All || got.Latest != want.Latest || strings.Join(got.Specific, " ") != strings.Join(want.Specific, " ") {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"versions: al":             "m/config.yaml:1:11: versions: is text; write all, or a list, or settings below it",
		"versions: 3":              "m/config.yaml:1:11: versions: is a number; write all, or a list",
		"versions: {latest: 0}":    "m/config.yaml:1:20: versions.latest: \"0\" is too small",
		"versions: {last: 1}":      "versions.last: unknown key",
		"versions: [[1]]":          "m/config.yaml:1:12: versions[0]: is a list",
		"versions: [1.5]":          "versions[0]: is a number, not text",
		"labels: [a]":              "labels: is a list",
		"labels: {a: [1]}":         "labels.a: is a list",
		"limits: {max_body: 1}":    "limits.max_body: \"1\" is too small",
		"limits: {max_body: 1Mi}":  "has the unknown unit",
		"limits: {timeout: 2}":     "limits.timeout: \"2\" has no unit",
		"max_batch_size: -1":       "max_batch_size: \"-1\" is too small",
		"max_batch_size: x":        "max_batch_size: ",
		"file: x":                  "unknown key",
		"platform: onnxruntime":    "unknown key",
		"versions: all\nlimits: 3": "m/config.yaml:2:9: limits: is a number",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}
