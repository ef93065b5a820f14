package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// memoryStarts are the raw data of memory-start: seconds from exec until all workers have the
// model, one a round.
type memoryStarts struct {
	Workers int                  `json:"workers"`
	First   []float64            `json:"first_s"` // of preforkd with an empty cache
	Ready   map[string][]float64 `json:"ready_s"` // by server, with a warm cache
}

// memoryStart times starts with everything that an earlier start has left.
func memoryStart(ctx context.Context, l *lab) (*result, error) {
	chosen, notes := l.chosenHolders(ctx, func(*holder) bool { return true })
	w, err := l.weightFiles(ctx)
	if err != nil {
		return nil, err
	}
	defer w.remove()
	raw := &memoryStarts{Workers: of(&l.options, memoryMost, 2), Ready: map[string][]float64{}}
	rounds := l.times(5)
	for round := range rounds {
		cache, err := os.MkdirTemp(l.dir, "memory-cache-")
		if err != nil {
			return nil, err
		}
		err = raw.round(ctx, l, chosen, round, cache, w)
		_ = os.RemoveAll(cache) // it is in bench/out, which nobody keeps
		if err != nil {
			return nil, err
		}
		l.say("round %d of %d: first start %.2f s, warm %.2f s; copies %.2f s", round+1, rounds, last(raw.First), last(raw.Ready[heldPrepared]), last(raw.Ready[heldPlain]))
	}
	t := table{head: []string{"server", "ready s", "min–max"}}
	t.add(heldPrepared+", empty cache", digits(median(raw.First)), spread(raw.First))
	for _, h := range chosen {
		t.add(h.name, digits(median(raw.Ready[h.name])), spread(raw.Ready[h.name]))
	}
	return &result{
		Title:  fmt.Sprintf("Start to ready: %d workers, %.0f MB of weights", raw.Workers, w.bytes/mega),
		Tables: []table{t},
		Goals: []goal{goal{
			Text: fmt.Sprintf("second start, times faster than %d copies", raw.Workers), Limit: 5, Unit: " ×",
			Values: ratios(raw.Ready[heldPlain], raw.Ready[heldPrepared]),
		}.judge()},
		Notes: append([]string{
			fmt.Sprintf("%d rounds, servers in turn; from exec until all workers have loaded the model; files are in the kernel's page cache", rounds),
			"both of preforkd with a cache that has the copy of the model, that of one with what was prepared; ratios within a round",
		}, notes...),
		Raw: raw,
	}, nil
}

// round has preforkd fill the cache, and then starts each once.
func (m *memoryStarts) round(ctx context.Context, l *lab, chosen []*holder, round int, cache string, w *weightFiles) error {
	n := func(h *holder) int {
		if h == &floorHolder {
			return 1
		}
		return m.Workers
	}
	once := func(h *holder) (float64, error) {
		s, err := l.hold(ctx, h, n(h), cache, w, oldWeights)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", h.name, err)
		}
		defer s.end()
		took := time.Since(s.server.Started())
		return took.Seconds(), s.touched(ctx, oldWeights)
	}
	first, err := once(holders[0])
	if err != nil {
		return err
	}
	m.First = append(m.First, first)
	for i := range chosen {
		h := chosen[(i+round)%len(chosen)]
		took, err := once(h)
		if err != nil {
			return err
		}
		m.Ready[h.name] = append(m.Ready[h.name], took)
	}
	return nil
}

func last(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return values[len(values)-1]
}
