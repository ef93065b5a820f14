package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"preforkd/bench/proc"
)

// started is the raw data of the scenario start: one value a start.
type started struct {
	Version    string    `json:"version"`
	Cold       []float64 `json:"cold_ms"` // with an empty cache
	Warm       []float64 `json:"warm_ms"` // with the cache that the start before left
	Supervisor []float64 `json:"supervisor_pss_mb"`
	Workers    []float64 `json:"worker_pss_mb"` // the largest of each start
}

// start times starts of preforkd with the four models and 2 workers, with an empty
// cache and a full one in turn.
func start(ctx context.Context, l *lab) (*result, error) {
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	raw := &started{Version: version}
	cache := filepath.Join(l.dir, "start-cache")
	defer os.RemoveAll(cache) //nolint:errcheck // it is in bench/out, which nobody keeps
	for i := range l.starts {
		if err := os.RemoveAll(cache); err != nil {
			return nil, err
		}
		for _, kind := range []struct {
			name string
			ms   *[]float64
		}{{"cold", &raw.Cold}, {"warm", &raw.Warm}} {
			took, err := l.startOnce(ctx, cache, raw)
			if err != nil {
				return nil, err
			}
			l.say("start %d of %d: %s cache, ready after %v", i+1, l.starts, kind.name, took.Round(time.Millisecond))
			*kind.ms = append(*kind.ms, float64(took)/float64(time.Millisecond))
		}
	}
	t := table{head: []string{"4 models, 2 workers", "median", "min–max"}}
	row := func(name, unit string, values []float64) {
		r := goal{Unit: unit, Values: values}.judge().row()
		t.add(name, r[2], r[3])
	}
	row("ready, empty cache", " ms", raw.Cold)
	row("ready, full cache", " ms", raw.Warm)
	row("supervisor's and main process's PSS", " MB", raw.Supervisor)
	row("largest worker's PSS", " MB", raw.Workers)
	return &result{
		Title:  "Start to ready, and memory",
		Tables: []table{t},
		Goals: []goal{
			goal{Text: "start to ready, empty cache", Limit: 1000, AtMost: true, Unit: " ms", Values: raw.Cold}.judge(),
			goal{Text: "start to ready, full cache", Limit: 1000, AtMost: true, Unit: " ms", Values: raw.Warm}.judge(),
			goal{Text: "supervisor's and main process's PSS", Limit: 25, AtMost: true, Unit: " MB", Values: raw.Supervisor}.judge(),
		},
		Notes: []string{
			fmt.Sprintf("%s; %d starts of each kind, from exec to the ready line, which comes when all workers are ready", version, l.starts),
			"files are in the kernel's page cache; MB is 10⁶ bytes",
		},
		Raw: raw,
	}, nil
}

// startOnce starts preforkd, returns how long it took to its ready line, notes its
// memory, and ends it.
func (l *lab) startOnce(ctx context.Context, cache string, raw *started) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	port, err := proc.FreePort()
	if err != nil {
		return 0, err
	}
	p, err := proc.Start(l.preforkd(port, cache))
	if err != nil {
		return 0, err
	}
	defer p.Stop(goodbye)
	line, err := p.FirstLine(ctx)
	if err != nil {
		return 0, err
	}
	base := "http://127.0.0.1:" + strconv.Itoa(port)
	if _, err := fetch(http.MethodGet, base+"/readyz", nil); err != nil {
		return 0, fmt.Errorf("it said %q: %w", line.Text, err)
	}
	if _, err := l.check(peers[0], base); err != nil {
		return 0, err
	}
	tree, err := p.Tree()
	if err != nil {
		return 0, err
	}
	var both, largest int64
	for _, pid := range tree {
		pss, err := proc.PSS(pid)
		if err != nil {
			return 0, err
		}
		command, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			return 0, err
		}
		if bytes.Contains(command, []byte("preforkd-worker")) {
			largest = max(largest, pss)
		} else {
			both += pss
		}
	}
	raw.Supervisor = append(raw.Supervisor, float64(both)/1e6)
	raw.Workers = append(raw.Workers, float64(largest)/1e6)
	return line.At.Sub(p.Started()), nil
}
