package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"preforkd/internal/load"
)

// memoryPeak is one reload to changed weights.
type memoryPeak struct {
	Holder  string        `json:"holder"`
	Round   int           `json:"round"`
	Before  memoryUse     `json:"before"`
	Serving float64       `json:"peak_without_helper"` // each peak over the whole reload, in bytes
	All     float64       `json:"peak"`
	Helper  float64       `json:"helper_peak"`
	Most    float64       `json:"helper_hwm"`
	After   memoryUse     `json:"after"`
	Took    time.Duration `json:"took_ns"`
	Looks   int           `json:"looks"`
	Weights int           `json:"weights"` // that it then has
}

// private is what each worker has beside the weights, which are held so many times.
func (p *memoryPeak) private(workers int, weights float64) float64 {
	return (float64(p.Before.Workers) - weights) / float64(workers)
}

// allowed is the most that a reload may take: both weights, and of each worker that may be there
// what it has for itself; and main process and supervisor, which a reload does not change.
func (p *memoryPeak) allowed(workers int, weights float64) float64 {
	return 2*weights + float64(workers+memorySurge)*p.private(workers, weights) + float64(p.Before.Others)
}

// memoryPeaks are the raw data of memory-reload.
type memoryPeaks struct {
	Bytes   float64       `json:"weights_bytes"`
	Workers int           `json:"workers"`
	Peaks   []*memoryPeak `json:"reloads"`
}

// memoryReload follows what a reload to changed weights takes at each moment. The new weights
// are nowhere prepared yet.
func memoryReload(ctx context.Context, l *lab) (*result, error) {
	chosen, notes := l.chosenHolders(ctx, func(h *holder) bool { return h.reload != nil })
	w, err := l.weightFiles(ctx)
	if err != nil {
		return nil, err
	}
	defer w.remove()
	raw := &memoryPeaks{Bytes: w.bytes, Workers: of(&l.options, memoryMost, 2)}
	rounds := l.times(3)
	for round := range rounds {
		for i := range chosen {
			h := chosen[(i+round)%len(chosen)]
			p, err := l.memoryPeak(ctx, h, raw.Workers, w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", h.name, err)
			}
			p.Round = round
			raw.Peaks = append(raw.Peaks, p)
			l.say("round %d of %d: %s: %.0f MB, at most %.0f MB in a reload of %.1f s, %.0f MB of them the helper's; then the %s weights", round+1, rounds, h.name,
				p.Before.total()/mega, p.All/mega, p.Took.Seconds(), p.Helper/mega, weightsNamed[p.Weights])
		}
	}
	return &result{
		Title:  fmt.Sprintf("Memory during a reload to changed weights: %d workers, %.0f MB of weights", raw.Workers, w.bytes/mega),
		Tables: []table{raw.table(chosen)},
		Goals:  raw.goals(),
		Notes: append([]string{
			fmt.Sprintf("PSS of the whole process tree, looked at every %v while one client sends one request after the other, none of which may fail; MB is 10⁶ bytes", peakTick),
			fmt.Sprintf("allowed: the old and the new weights, and %d + %d (reload.max_surge) times what a worker has for itself before: its part of the workers' memory beyond the weights; and main process and supervisor",
				raw.Workers, memorySurge),
			"the helper: the process that prepares a model; its own highest resident memory is the kernel's (VmHWM), the peaks are the largest of what was looked at",
		}, notes...),
		Raw: raw,
	}, nil
}

const peakTick = 100 * time.Millisecond

// memoryPeak starts h with a cache of its own and reloads it to new weights.
func (l *lab) memoryPeak(ctx context.Context, h *holder, n int, w *weightFiles) (*memoryPeak, error) {
	cache, err := os.MkdirTemp(l.dir, "memory-cache-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(cache) //nolint:errcheck // it is in bench/out, which nobody keeps
	s, err := l.hold(ctx, h, n, cache, w, oldWeights)
	if err != nil {
		return nil, err
	}
	defer s.end()
	if err := s.touched(ctx, oldWeights); err != nil {
		return nil, err
	}
	p := &memoryPeak{Holder: h.name}
	if p.Before, err = s.settled(ctx); err != nil {
		return nil, err
	}
	if err := s.deploy(newWeights); err != nil {
		return nil, err
	}
	if err := p.follow(ctx, s); err != nil {
		return nil, err
	}
	if p.Weights, err = s.touch(ctx); err != nil {
		return nil, err
	}
	p.After, err = s.settled(ctx)
	return p, err
}

// follow reloads s under the requests of one client and looks at its memory meanwhile.
func (p *memoryPeak) follow(ctx context.Context, s *held) error {
	ctx, cancel := context.WithTimeout(ctx, memoryBoot)
	defer cancel()
	g, err := load.New(s.options(0, 0))
	if err != nil {
		return err
	}
	var report *load.Report
	loaded, reloaded := make(chan error, 1), make(chan error, 1)
	go func() { // ends at Stop below, or with ctx
		var err error
		report, err = g.Run(ctx)
		loaded <- err
	}()
	began := time.Now()
	go func() { reloaded <- s.h.reload(ctx, s) }() // ends with the reload, or with ctx
	for tick := time.NewTicker(peakTick); ; {
		u, err := s.use()
		if err != nil {
			cancel()
		}
		p.Looks++
		p.All, p.Serving = max(p.All, u.total()), max(p.Serving, u.total()-float64(u.Helper))
		p.Helper, p.Most = max(p.Helper, float64(u.Helper)), max(p.Most, float64(u.Most))
		select {
		case err = <-reloaded:
			p.Took = time.Since(began)
			tick.Stop()
			g.Stop()
			if wrong := <-loaded; err == nil {
				err = wrong
			}
			if err == nil && (report.Failures.Total() > 0 || report.Answers == 0) && !s.h.ours() {
				return nil // it is not what is measured here
			}
			if err == nil && report.Failures.Total() > 0 {
				err = fmt.Errorf("requests failed:\n%v", report)
			}
			return err
		case <-tick.C:
		}
	}
}

func (m *memoryPeaks) column(h string, number func(*memoryPeak) float64) (values []float64) {
	for _, p := range m.Peaks {
		if p.Holder == h {
			values = append(values, number(p))
		}
	}
	return values
}

func (m *memoryPeaks) table(chosen []*holder) table {
	t := table{head: []string{"server", "MB before", "peak MB", "min–max", "of it the helper MB", "helper's VmHWM MB", "allowed MB", "MB after", "reload s", "weights then"}}
	for _, h := range chosen {
		all := m.column(h.name, func(p *memoryPeak) float64 { return p.All / mega })
		middle := func(number func(*memoryPeak) float64) string { return digits(median(m.column(h.name, number))) }
		row := []string{
			h.name, middle(func(p *memoryPeak) float64 { return p.Before.total() / mega }), digits(median(all)), spread(all), "", "", "",
			middle(func(p *memoryPeak) float64 { return p.After.total() / mega }), middle(func(p *memoryPeak) float64 { return p.Took.Seconds() }),
			weightsNamed[int(median(m.column(h.name, func(p *memoryPeak) float64 { return float64(p.Weights) })))],
		}
		if h.name == heldPrepared {
			row[4] = middle(func(p *memoryPeak) float64 { return p.Helper / mega })
			row[5] = middle(func(p *memoryPeak) float64 { return p.Most / mega })
			row[6] = middle(func(p *memoryPeak) float64 { return p.allowed(m.Workers, m.Bytes) / mega })
		}
		t.add(row...)
	}
	return t
}

func (m *memoryPeaks) goals() []goal {
	share := func(number func(*memoryPeak) float64) []float64 {
		return m.column(heldPrepared, func(p *memoryPeak) float64 { return number(p) / p.allowed(m.Workers, m.Bytes) })
	}
	return []goal{
		goal{
			Text: "peak of a reload to new weights, helper counted, × allowed", Limit: 1, AtMost: true, Unit: " ×", Values: share(func(p *memoryPeak) float64 { return p.All }),
		}.judge(),
		goal{
			Text: "the same beside the helper, × allowed", Limit: 1, AtMost: true, Unit: " ×", Values: share(func(p *memoryPeak) float64 { return p.Serving }),
		}.judge(),
	}
}
