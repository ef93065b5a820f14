package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestModelsInEveryForm: a directory alone is what it always was, in each source, and a section
// says more.
func TestModelsInEveryForm(t *testing.T) {
	plain := onlyDir("/m")
	more := plain
	more.Control, more.Watch = ControlAdmin, 15*time.Second
	for _, test := range []struct {
		file  string
		env   []string
		flags []Flag
		want  Models
		from  string // of the directory
	}{
		{file: "models: /m\n", want: plain, from: "FILE:1"},
		{file: "models:\n  dir: /m\n", want: plain, from: "FILE:2"},
		{file: "models: {dir: /m, control: admin, watch: 15s}\n", want: more, from: "FILE:1"},
		{file: "models:\n", want: Default().Models, from: "default"},
		{env: []string{"PREFORKD_MODELS=/m"}, want: plain, from: "environment PREFORKD_MODELS"},
		{flags: []Flag{{Name: "--models", Key: "models", Value: "/m"}}, want: plain, from: "flag --models"},
		{flags: []Flag{{Name: "--set models.dir", Key: "models.dir", Value: "/m"}}, want: plain, from: "flag --set models.dir"},
		{
			file: "models: /other\n", env: []string{"PREFORKD_MODELS_CONTROL=admin", "PREFORKD_MODELS_WATCH=15s", "PREFORKD_MODELS=/m"},
			want: more, from: "environment PREFORKD_MODELS",
		},
	} {
		file := filepath.Join(t.TempDir(), "preforkd.yaml")
		if err := os.WriteFile(file, []byte(test.file), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Load(Sources{File: file, Env: test.env, Flags: test.flags})
		if err != nil {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		if got := strings.ReplaceAll(l.Origins["models"], file, "FILE"); l.Config.Models != test.want || got != test.from {
			t.Errorf("%+v: %+v from %s", test, l.Config.Models, got)
		}
	}
	for text, want := range map[string]string{
		"models: ''\n":              `models: "" is empty; write text that is not empty`,
		"models: [a]\n":             "models: is a list; write text, or settings below it",
		"models: 1.10\n":            "models: is a number, not text",
		"models: {control: all}\n":  "models.control: \"all\"",
		"models: {watch: 1ms}\n":    "models.watch: \"1ms\"",
		"models: {directory: /m}\n": "models.directory: unknown key",
	} {
		var c Config
		if err := Decode("f", []byte(text), &c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestModelsOfAnotherVersion: a program for which models is a directory reads what says no more.
func TestModelsOfAnotherVersion(t *testing.T) {
	type before struct{ Models string }
	text, err := json.Marshal(Config{Models: onlyDir("/m")})
	if err != nil {
		t.Fatal(err)
	}
	var old before
	if err := json.Unmarshal(text, &old); err != nil || old.Models != "/m" {
		t.Errorf("%v: %+v", err, old)
	}
	if text, err = json.Marshal(old); err != nil {
		t.Fatal(err)
	}
	var c Config
	if err := json.Unmarshal(text, &c); err != nil || c.Models != onlyDir("/m") {
		t.Errorf("%v: %+v", err, c.Models)
	}
}
