package main

import (
	"encoding/xml"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"preforkd/internal/load"
)

// TestTailsAreToldApart: two reloads, of which the second has a slow bake.
func TestTailsAreToldApart(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	moments := []moment{
		{begins, at(100 * ms)},
		{"canary", at(100 * ms)},
		{"bake", at(120 * ms)},
		{"generation 2 serves", at(140 * ms)},
		{ends, at(150 * ms)},
		{begins, at(200 * ms)},
		{"canary", at(200 * ms)},
		{"bake", at(210 * ms)},
		{ends, at(250 * ms)},
	}
	trace := slices.Concat(
		answered(1*ms, 50*ms, 99*ms, 160*ms, 199*ms, 300*ms),
		answered(2*ms, 110*ms, 145*ms, 205*ms),
		answered(7*ms, 130*ms),
		answered(9*ms, 254*ms), // due before the second reload has ended
	)
	var r tailRun
	r.measure(&load.Report{Start: start, Trace: trace}, moments)
	if !slices.Equal(r.Reloads, []span{{100 * ms, 150 * ms}, {200 * ms, 250 * ms}}) || r.Quiet != 1 || r.During != 9 {
		t.Errorf("%+v", r)
	}
	got := map[string]phase{}
	for _, p := range r.Phases {
		got[p.Name] = p
	}
	if p := got["canary"]; p.P99 != 2 || math.Abs(p.Share-0.3) > 1e-9 {
		t.Errorf("canary %+v", p)
	}
	if p := got["bake"]; p.P99 != 9 || math.Abs(p.Share-0.6) > 1e-9 {
		t.Errorf("bake %+v", p)
	}
}

func TestStormsAreJudged(t *testing.T) {
	s := storm{Reloads: []reloaded{{Replaced: true}, {Exit: 4}}, Closed: 1, Report: &load.Report{Dials: 65}}
	var verdicts []string
	for _, g := range s.goals(kind{name: "64 clients", conns: 64}) {
		verdicts = append(verdicts, g.Verdict)
	}
	if !slices.Equal(verdicts, []string{"PASS", "MISS", "MISS", "MISS"}) {
		t.Errorf("%v", verdicts)
	}
}

// TestPicture: it is XML, small, and has each contender once, with what was not
// answered left out.
func TestPicture(t *testing.T) {
	run := func(name string, all ...bin) *watched {
		return &watched{Contender: name, Width: binWidth, Bins: all, Reload: span{100 * ms, 300 * ms}, Outcome: reloaded{Took: 200 * ms}}
	}
	full := bin{Answers: 100, Worst: ms}
	text := picture([]*watched{
		run("preforkd", full, full, full), run("a<b", full, bin{Failures: 3}, full, full), run("preforkd", full),
	})
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(text, ">preforkd<"); n != 1 || !strings.Contains(text, ">a&lt;b<") {
		t.Errorf("preforkd is there %d times in %s", n, text)
	}
	var delays []string
	for _, part := range strings.Split(text, `class="delay" d="`)[1:] {
		path, _, _ := strings.Cut(part, `"`)
		delays = append(delays, path)
	}
	if len(delays) != 2 || strings.Count(delays[0], "M") != 1 || strings.Count(delays[1], "M") != 2 {
		t.Errorf("%q", delays)
	}
}
