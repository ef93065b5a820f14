package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"preforkd/internal/load"
)

// latencyVisit is one measurement of a service that stands beside another.
type latencyVisit struct {
	Holder string       `json:"holder"`
	Round  int          `json:"round"`
	Report *load.Report `json:"report"`
}

// memoryLatency compares requests to workers that share their weights with requests to workers
// that have copies. Both services stand at once, so that a pair lies seconds apart.
func memoryLatency(ctx context.Context, l *lab) (*result, error) {
	version, err := holders[0].prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	w, err := l.weightFiles(ctx)
	if err != nil {
		return nil, err
	}
	defer w.remove()
	cache, err := os.MkdirTemp(l.dir, "memory-cache-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(cache) //nolint:errcheck // it is in bench/out, which nobody keeps
	n := of(&l.options, memoryMost, 2)
	var both [2]*held
	for i, h := range holders[:2] {
		if both[i], err = l.hold(ctx, h, n, cache, w, oldWeights); err != nil {
			return nil, err
		}
		defer both[i].end()
		if err := both[i].touched(ctx, oldWeights); err != nil {
			return nil, err
		}
	}
	rounds := l.times(7)
	var raw []*latencyVisit
	p50s := map[string][]float64{} // the mean of both measurements of a round
	for round := range rounds {
		order := []int{0, 1, 1, 0}
		if round%2 == 1 {
			order = []int{1, 0, 0, 1}
		}
		var sum [2]time.Duration
		for _, i := range order {
			r, err := both[i].load(ctx, l.warmup/2, l.duration)
			if err != nil {
				return nil, err
			}
			raw = append(raw, &latencyVisit{both[i].h.name, round, r})
			sum[i] += r.Latency.P50
		}
		for i, h := range holders[:2] {
			p50s[h.name] = append(p50s[h.name], sum[i].Seconds()*1000/2)
		}
		l.say("round %d of %d: p50 %v shared, %v of copies", round+1, rounds, (sum[0] / 2).Round(10*time.Microsecond), (sum[1] / 2).Round(10*time.Microsecond))
	}
	t := table{head: []string{"server", "p50 ms", "min–max"}}
	for _, h := range holders[:2] {
		t.add(h.name, digits(median(p50s[h.name])), spread(p50s[h.name]))
	}
	return &result{
		Title:  fmt.Sprintf("Latency with one copy of %.0f MB of weights, and with copies: %d workers", w.bytes/mega, n),
		Tables: []table{t},
		Goals: []goal{goal{
			Text: "p50 with one copy, × with copies", Limit: 1.03, AtMost: true, Unit: " ×", Values: ratios(p50s[heldPrepared], p50s[heldPlain]),
		}.judge()},
		Notes: []string{
			version,
			fmt.Sprintf("%d rounds; both services stand at once and are measured in turns, twice each a round, %v after %v of warm-up; one client, one request after the other; ratios within a round",
				rounds, l.duration, l.warmup/2),
		},
		Raw: raw,
	}, nil
}
