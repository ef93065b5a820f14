package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

// echoHelper gives back what it gets: what is measured is the way to it.
const echoHelper = `
import sys
sys.path.insert(0, %q)
import preforkd_helper as helper

def echo(request):
    return {"out": request["in"]}

for name in ("one", "two", "three"):
    helper.model(name, inputs=[("in", "BYTES", [1])], outputs=[("out", "BYTES", [1])])(echo)
helper.serve()
`

const hopSettings = `routes:
  /one: {steps: [helper:echo/one]}
  /three: {steps: [helper:echo/one, helper:echo/two, helper:echo/three]}
pools:
  echo:
    workers: %d
    worker: {kind: helper, command: [%s, %s]}
`

const (
	hopConns = 4
	hopBytes = 1000
)

// hopRun is one load on one route.
type hopRun struct {
	Path  string        `json:"path"`
	Round int           `json:"round"`
	Own   time.Duration `json:"own_cpu_ns"` // of a request, without the helpers'
	Visit *visit        `json:"visit"`
}

// hopRuns is the raw data of helpers-hop.
type hopRuns struct {
	Rounds int       `json:"rounds"`
	Runs   []*hopRun `json:"runs"`
}

// helpersHop measures what a request with three hops costs preforkd beyond one with one hop: half of
// that is a hop. The helpers' own CPU time does not count.
func helpersHop(ctx context.Context, l *lab) (*result, error) {
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	script := filepath.Join(l.dir, "echo.py")
	if err := os.WriteFile(script, fmt.Appendf(nil, echoHelper, filepath.Join(l.root, "helpers", "python")), 0o644); err != nil {
		return nil, err
	}
	s, err := l.stand(ctx, "hop", fmt.Sprintf(hopSettings, workersEach, python, script), modelFile{"digits-cnn", filepath.Join(l.root, "models", "digits-cnn"), ""})
	if err != nil {
		return nil, err
	}
	defer s.end()
	raw := &hopRuns{Rounds: l.times(5)}
	paths := []string{"/one", "/three"}
	for round := range raw.Rounds {
		for i := range paths {
			r, err := l.hop(ctx, s, paths[(i+round)%2], script)
			if err != nil {
				return nil, err
			}
			r.Round = round
			l.say("round %d of %d: %-6s %6.0f requests/s, %.0f µs CPU a request beyond the helpers', %.0f with them, others %.0f %%",
				round+1, raw.Rounds, r.Path, r.Visit.Report.Throughput(), micros(r.Own), micros(r.Visit.Server), others(r.Visit))
			raw.Runs = append(raw.Runs, r)
		}
	}
	own := func(r *hopRun) float64 { return micros(r.Own) }
	hops := differences(raw.column("/three", own), raw.column("/one", own))
	for i := range hops {
		hops[i] /= 2
	}
	t := table{head: []string{"steps", "requests/s", "CPU µs beyond the helpers'", "CPU µs"}}
	for _, path := range paths {
		t.add(path, digits(median(raw.column(path, func(r *hopRun) float64 { return throughput(r.Visit) }))), digits(median(raw.column(path, own))),
			digits(median(raw.column(path, func(r *hopRun) float64 { return serverCPU(r.Visit) }))))
	}
	return &result{
		Title:  fmt.Sprintf("The hop to a helper: %d bytes there and back, %d clients", hopBytes, hopConns),
		Tables: []table{t},
		Goals:  []goal{goal{Text: "CPU of a hop beyond the helper's own", Limit: 100, AtMost: true, Unit: " µs", Values: hops}.judge()},
		Notes:  []string{"preforkd: " + version + fmt.Sprintf(", %d helpers", workersEach), fmt.Sprintf("%d cores; workers and supervisor together, kernel time included", runtime.NumCPU())},
		Raw:    raw,
	}, nil
}

func (h *hopRuns) column(path string, number func(*hopRun) float64) (values []float64) {
	for _, r := range h.Runs {
		if r.Path == path {
			values = append(values, number(r))
		}
	}
	return values
}

// hop loads one route, and tells the CPU time of the helpers, whose command has script in it, from
// that of everybody else.
func (l *lab) hop(ctx context.Context, s *standing, path, script string) (*hopRun, error) {
	helpers, err := s.running(script)
	if err != nil {
		return nil, err
	}
	if len(helpers) != workersEach {
		return nil, fmt.Errorf("%d helpers run, not %d", len(helpers), workersEach)
	}
	// Without a warm-up of its own all of the load is measured, and so is all of the helpers' time.
	o := load.Options{Addr: s.address, Conns: hopConns, Keepalive: true, Request: load.Post(path, "text/plain", []byte(strings.Repeat("x", hopBytes)))}
	o.Duration = l.warmup
	if _, err := l.loaded(ctx, s, o); err != nil {
		return nil, err
	}
	o.Duration = l.duration
	before, err := proc.CPUOf(helpers...)
	if err != nil {
		return nil, err
	}
	v, err := l.loaded(ctx, s, o)
	if err != nil {
		return nil, err
	}
	after, err := proc.CPUOf(helpers...)
	if err != nil {
		return nil, err
	}
	return &hopRun{Path: path, Own: v.Server - (after-before)/time.Duration(max(v.Ended, 1)), Visit: v}, nil
}

// running returns the processes of s that have word in their command line.
func (s *standing) running(word string) (pids []int, err error) {
	tree, err := s.server.Tree()
	for _, pid := range tree {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(text), word) { // else it has ended
			pids = append(pids, pid)
		}
	}
	return pids, err
}
