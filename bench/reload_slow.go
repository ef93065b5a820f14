package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"preforkd/internal/load"
)

// watched is one run with one reload in it, under requests that arrive by the clock.
type watched struct {
	Contender string        `json:"contender"`
	Round     int           `json:"round"`
	Rate      float64       `json:"rate"`
	Steady    span          `json:"steady"` // before the reload
	Reload    span          `json:"reload"` // to its end
	Outcome   reloaded      `json:"outcome"`
	Gap       [2]float64    `json:"gap_ms"`   // longest time without an answer: steady, during
	Worst     [2]float64    `json:"worst_ms"` // longest latency: steady, during
	Failed    load.Counts   `json:"failed"`   // from the reload on
	Closed    uint64        `json:"closed"`   // from the reload on
	Width     time.Duration `json:"bin_ns"`
	Bins      []bin         `json:"bins"` // of the whole run
}

const (
	slowRate  = 500 // requests a second
	slowConns = 64
	binWidth  = 100 * time.Millisecond
)

// reloadSlow reloads into a version that boots 6 s while requests arrive by the clock.
func reloadSlow(ctx context.Context, l *lab) (*result, error) {
	chosen, notes := l.chosenContenders(ctx)
	rounds := l.times(3)
	var raw []*watched
	for round := range rounds {
		for _, c := range chosen {
			if round > 0 && c != &ourselves { // their seconds need no second look
				continue
			}
			w, err := l.watch(ctx, c, round)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			l.say("round %d of %d: %-8s  gap %.1f ms, then %.1f; longest latency %.1f ms, then %.1f; %d failed, %d closed",
				round+1, rounds, c.name, w.Gap[0], w.Gap[1], w.Worst[0], w.Worst[1], w.Failed.Total(), w.Closed)
			raw = append(raw, w)
		}
	}
	t := table{head: []string{
		"boots 6 s", "reload s", "gap ms, steady", "in the reload", "longest latency ms, steady", "in the reload", "failed", "connections closed",
	}}
	var gaps, worst, failed []float64
	for _, w := range raw {
		t.add(w.Contender, digits(w.Outcome.Took.Seconds()), digits(w.Gap[0]), digits(w.Gap[1]), digits(w.Worst[0]), digits(w.Worst[1]),
			fmt.Sprint(w.Failed.Total()), fmt.Sprint(w.Closed))
		if w.Contender == ours {
			gaps, worst, failed = append(gaps, w.Gap[1]-w.Gap[0]), append(worst, w.Worst[1]-w.Worst[0]), append(failed, float64(w.Failed.Total()+w.Closed))
		}
	}
	path := l.picture
	if path == "" {
		path = filepath.Join(l.dir, "reload.svg")
	}
	if err := os.WriteFile(path, []byte(picture(raw)), 0o644); err != nil {
		return nil, err
	}
	return &result{
		Title:  "A reload into a version that boots 6 s",
		Tables: []table{t},
		Goals: []goal{
			goal{Text: "longest time without an answer, above the steady state's", AtMost: true, Limit: 50, Unit: " ms", Values: gaps}.judge(),
			goal{Text: "longest latency of any request, above the steady state's", AtMost: true, Limit: 50, Unit: " ms", Values: worst}.judge(),
			goal{Text: "failed requests and closed connections", AtMost: true, Values: failed}.judge(),
		},
		Notes: append(notes,
			fmt.Sprintf("%d requests a second over %d connections, at fixed times; latency counts from the time at which a request was due", slowRate, slowConns),
			"in the reload: from the moment in which it was asked for to a second after it had ended (uWSGI: 4 s, its second worker still boots then)",
			"preforkd's reload takes longer because it proves one new worker before the other boots: bake 2 s, trial 1 s",
			"nginx has nothing to boot; picture: "+path),
		Raw: raw,
	}, nil
}

// watch runs c, reloads it once into a slow version, and tells apart what happened in
// the reload and before it.
func (l *lab) watch(ctx context.Context, c *contender, round int) (*watched, error) {
	s := &stage{c: c, patience: 15 * time.Second}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	w := &watched{Contender: c.name, Round: round, Rate: slowRate, Width: binWidth}
	v := slow
	if c == &nginx {
		v = fine
	}
	const warm = time.Second
	var before load.Progress
	var asked, done time.Time
	report, err := s.under(ctx, load.Options{
		Conns: slowConns, Rate: slowRate, Warmup: warm, Timeout: 20 * time.Second, Trace: true,
	}, func(g *load.Generator) error {
		if err := rest(ctx, warm+of(&l.options, 6*time.Second, time.Second)); err != nil {
			return err
		}
		before = g.Progress()
		asked = time.Now()
		var err error
		if w.Outcome, err = s.reload(ctx, v, 40*time.Second); err != nil {
			return err
		}
		err = rest(ctx, c.pause+time.Second)
		if done = time.Now(); err != nil || round > 0 {
			return err
		}
		return rest(ctx, time.Duration(after*float64(time.Second))-time.Since(asked)) // for the picture
	})
	if err != nil {
		return nil, err
	}
	w.Steady = span{0, asked.Sub(report.Start)}
	w.Reload = span{w.Steady.To, done.Sub(report.Start)}
	w.measure(report, warm)
	for i, n := range before.Failures {
		w.Failed[i] = report.Failures[i] + report.Warmup.Failures[i] - n
	}
	w.Closed = report.Dials - before.Dials
	return w, nil
}

// measure fills in what follows from the report.
func (w *watched) measure(report *load.Report, warm time.Duration) {
	millis := func(d time.Duration) float64 { return micros(d) / 1000 }
	w.Gap = [2]float64{millis(longestGap(report.Trace, w.Steady)), millis(longestGap(report.Trace, w.Reload))}
	inside, outside := split(report.Trace, []span{w.Reload})
	w.Worst = [2]float64{millis(quantile(outside, 1)), millis(quantile(inside, 1))}
	var failures []time.Duration
	for _, f := range report.First {
		if !f.Warmup {
			failures = append(failures, f.At-warm)
		}
	}
	w.Bins = bins(report.Trace, failures, w.Width, report.Elapsed)
}
