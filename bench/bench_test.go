package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		g    goal
		want []string
	}{
		{
			goal{Text: "a", Limit: 0.9, Unit: " ×", Values: []float64{0.95, 0.85, 0.91}},
			[]string{"a", "≥ 0.90 ×", "0.91 ×", "0.85–0.95", "PASS"},
		},
		{
			goal{Text: "b", Limit: 17, Values: []float64{16, 17.5, 12, 16.8}},
			[]string{"b", "≥ 17", "16.4", "12–17.5", "MISS"},
		},
		{
			goal{Text: "c", AtMost: true, Limit: 0, Unit: " allocations", Values: []float64{0}},
			[]string{"c", "≤ 0 allocations", "0 allocations", "0–0", "PASS"},
		},
		{goal{Text: "d", AtMost: true, Limit: 40, Values: []float64{123.4}}, []string{"d", "≤ 40", "123", "123–123", "MISS"}},
		{goal{Text: "f", Exact: true, Limit: 4, Values: []float64{4, 4}}, []string{"f", "= 4", "4", "4–4", "PASS"}},
		{goal{Text: "g", Exact: true, Limit: 4, Values: []float64{3}}, []string{"g", "= 4", "3", "3–3", "MISS"}},
		{goal{Text: "e", Limit: 1}, []string{"e", "≥ 1", "", "", "not measured"}},
	} {
		if got := c.g.judge().row(); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestTables(t *testing.T) {
	tab := table{head: []string{"peer", "µs"}}
	tab.add("preforkd", "1")
	tab.add("b", "123")
	var text, md strings.Builder
	tab.text(&text)
	tab.markdown(&md)
	if want := "peer       µs\npreforkd    1\nb         123\n"; text.String() != want {
		t.Errorf("%q", text.String())
	}
	if want := "| peer | µs |\n| --- | ---: |\n| preforkd | 1 |\n| b | 123 |\n"; md.String() != want {
		t.Errorf("%q", md.String())
	}
}

func TestBenchmarksAreParsed(t *testing.T) {
	got := parseBenchmarks("goos: linux\nBenchmarkHandle/predict,_name-2 \t 100 \t 3021.5 ns/op\t 8 B/op \t 1 allocs/op\n" +
		"BenchmarkInferImage/whole-2 \t 58 \t 5434828 ns/op\t 98.96 MB/s\t 152.5 MB/CPU-s\t 10456 B/op\t 0 allocs/op\nPASS\n")
	if !slices.Equal(got, []allocated{{"predict, name", 3021.5, 8, 1, 0, 0}, {"whole", 5434828, 10456, 0, 98.96, 152.5}}) {
		t.Errorf("%+v", got)
	}
}

// TestAnswersAreJudged by scikit-learn's, in both forms.
func TestAnswersAreJudged(t *testing.T) {
	all, err := readDigits(filepath.Join("..", "testdata", "digits"))
	if err != nil || len(all) != 360 {
		t.Fatalf("%d samples, %v", len(all), err)
	}
	d := digit{label: 1, probabilities: []float64{0.25, 0.75}}
	for _, c := range []struct {
		answer string
		read   func([]byte) (int, []float64, error)
		ok     bool
	}{
		{`{"prediction":1,"probabilities":[0.25001,0.74999],"model":"digits","version":"1"}`, predictAnswer, true},
		{`{"prediction":0,"probabilities":[0.25,0.75],"model":"digits","version":"1"}`, predictAnswer, false},
		{`{"prediction":1,"probabilities":[0.26,0.74],"model":"digits","version":"1"}`, predictAnswer, false},
		{`{"prediction":1,"probabilities":[0.25],"model":"digits","version":"1"}`, predictAnswer, false},
		{`{"prediction":1,"probabilities":[0.25,0.75],"model":"digits-cnn","version":"1"}`, predictAnswer, false},
		{`<html>`, predictAnswer, false},
		{`{"outputs":[{"name":"label","data":[1]},{"name":"probabilities","data":[0.25,0.75]}]}`, inferAnswer, true},
		{`{"outputs":[{"name":"probabilities","data":[0.25,0.75]}]}`, inferAnswer, false},
	} {
		if err := d.right([]byte(c.answer), c.read); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.answer, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, args := range []string{"--only nothing", "--rounds -1", "--duration -1s", "stray"} {
		if err := run(t.Context(), append([]string{"--build=false"}, strings.Fields(args)...), new(strings.Builder), new(strings.Builder)); err == nil {
			t.Errorf("%s is accepted", args)
		}
	}
	for list, want := range map[string]string{
		"start, serve":     "start serve",
		"":                 "serve start allocs",
		"overhead, reload": "overhead reload-busy reload-slow reload-bad reload-tail",
		"balance":          "balance",
	} {
		got, err := choose(list)
		var chosen []string
		for _, s := range got {
			chosen = append(chosen, s.name)
		}
		if strings.Join(chosen, " ") != want || err != nil {
			t.Errorf("%q chooses %v, %v", list, chosen, err)
		}
	}
}

func TestOthersAreSeen(t *testing.T) {
	before, _, err := busy()
	if err != nil || before <= 0 {
		t.Fatalf("%v, %v", before, err)
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		_ = os.Getpid()
	}
	if after, _, err := busy(); err != nil || after <= before {
		t.Errorf("%v, then %v, %v", before, after, err)
	}
}
