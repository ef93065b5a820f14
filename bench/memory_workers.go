package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// memoryVisit is one service with so many workers, before and after a reload.
type memoryVisit struct {
	Holder  string        `json:"holder"`
	Workers int           `json:"workers"`
	Round   int           `json:"round"`
	Use     memoryUse     `json:"pss_bytes"`
	P50     time.Duration `json:"p50_ns"`
	After   *memoryUse    `json:"pss_after_reload_bytes,omitempty"`
	Weights int           `json:"weights_after_reload"` // oldWeights or newWeights
}

// memoryRun is the raw data of memory-workers.
type memoryRun struct {
	Rounds  int            `json:"rounds"`
	Bytes   float64        `json:"weights_bytes"`
	Counts  []int          `json:"workers"`
	Visits  []*memoryVisit `json:"visits"`
	Elapsed time.Duration  `json:"elapsed_ns"`
}

// memoryWorkers measures 1, 2, 4 and 8 workers of each holder.
func memoryWorkers(ctx context.Context, l *lab) (*result, error) {
	chosen, notes := l.chosenHolders(ctx, func(*holder) bool { return true })
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
	raw := &memoryRun{Rounds: l.times(3), Bytes: w.bytes, Counts: of(&l.options, []int{1, 2, 4, memoryMost}, []int{1, 2})}
	began := time.Now()
	for round := range raw.Rounds {
		for i := range chosen {
			h := chosen[(i+round)%len(chosen)]
			for _, n := range raw.Counts {
				if h == &floorHolder && n > 1 {
					continue
				}
				v, err := l.memoryVisit(ctx, h, n, cache, w)
				if err != nil {
					return nil, fmt.Errorf("%s, %d workers: %w", h.name, n, err)
				}
				v.Round = round
				raw.Visits = append(raw.Visits, v)
				l.say("round %d of %d: %s, %d workers: %.0f MB, p50 %v%s", round+1, raw.Rounds, h.name, n, v.Use.total()/mega, v.P50.Round(10*time.Microsecond), v.reloaded())
			}
		}
	}
	raw.Elapsed = time.Since(began)
	return &result{
		Title:  fmt.Sprintf("Memory of 1 to %d workers of a model with %.0f MB of weights", raw.most(), w.bytes/mega),
		Tables: []table{raw.table(chosen)},
		Goals:  raw.goals(),
		Notes: append([]string{
			"PSS of the whole process tree, once every worker has answered; MB is 10⁶ bytes; median and min–max over the rounds",
			fmt.Sprintf("%d rounds; every service is started anew with warm caches; p50 of one client that sends one request after the other for %v", raw.Rounds, l.duration),
			"after a reload: to a model of the same size with other weights; which it then answers by is compared with the floor's answer",
			fmt.Sprintf("preforkd: reload.max_surge %d, bake and trial 200 ms; the files of the cache are in the kernel's page cache, which no process's PSS has", memorySurge),
		}, notes...),
		Raw: raw,
	}, nil
}

func (v *memoryVisit) reloaded() string {
	if v.After == nil {
		return ""
	}
	return fmt.Sprintf("; after a reload %.0f MB and the %s weights", v.After.total()/mega, weightsNamed[v.Weights])
}

// memoryVisit measures one service.
func (l *lab) memoryVisit(ctx context.Context, h *holder, n int, cache string, w *weightFiles) (*memoryVisit, error) {
	s, err := l.hold(ctx, h, n, cache, w, oldWeights)
	if err != nil {
		return nil, err
	}
	defer s.end()
	v := &memoryVisit{Holder: h.name, Workers: n}
	if err := s.touched(ctx, oldWeights); err != nil {
		return nil, err
	}
	r, err := s.load(ctx, l.warmup, l.duration)
	if err != nil {
		return nil, err
	}
	v.P50 = r.Latency.P50
	if v.Use, err = s.settled(ctx); err != nil || h.reload == nil {
		return v, err
	}
	if err := s.deploy(newWeights); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, memoryBoot)
	defer cancel()
	if err := h.reload(limited, s); err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	if v.Weights, err = s.touch(ctx); err != nil {
		return nil, err
	}
	after, err := s.settled(ctx)
	v.After = &after
	return v, err
}

// touched is touch of a service that must have these weights.
func (s *held) touched(ctx context.Context, want int) error {
	got, err := s.touch(ctx)
	if err == nil && got != want {
		err = fmt.Errorf("%s has the %s weights", s.h.name, weightsNamed[got])
	}
	return err
}

func (m *memoryRun) most() int { return slices.Max(m.Counts) }

// column returns a number of a holder with so many workers, one a round.
func (m *memoryRun) column(h string, n int, number func(*memoryVisit) float64) (values []float64) {
	for _, v := range m.Visits {
		if v.Holder == h && v.Workers == n {
			values = append(values, number(v))
		}
	}
	return values
}

func (v *memoryVisit) megabytes() float64 { return v.Use.total() / mega }
func (v *memoryVisit) after() float64     { return v.After.total() / mega }
func (v *memoryVisit) millis() float64    { return v.P50.Seconds() * 1000 }

// further returns what each worker beyond the one before in Counts has added, one a round.
func (m *memoryRun) further(h string, n int) (values []float64) {
	i := slices.Index(m.Counts, n)
	if i < 1 {
		return nil
	}
	before := m.Counts[i-1]
	for _, d := range differences(m.column(h, n, (*memoryVisit).megabytes), m.column(h, before, (*memoryVisit).megabytes)) {
		values = append(values, d/float64(n-before))
	}
	return values
}

// steepest returns the largest of further for all numbers of workers, one a round.
func (m *memoryRun) steepest(h string) (values []float64) {
	for _, n := range m.Counts {
		for round, v := range m.further(h, n) {
			if round == len(values) {
				values = append(values, v)
			}
			values[round] = max(values[round], v)
		}
	}
	return values
}

func (m *memoryRun) table(chosen []*holder) table {
	t := table{head: []string{"server", "workers", "MB", "min–max", "× the weights", "MB each further worker", "p50 ms", "MB after a reload", "min–max", "weights then"}}
	for _, h := range chosen {
		for _, n := range m.Counts {
			all := m.column(h.name, n, (*memoryVisit).megabytes)
			if len(all) == 0 {
				continue
			}
			row := []string{
				h.name, fmt.Sprint(n), digits(median(all)), spread(all), digits(median(all) * mega / m.Bytes), "",
				digits(median(m.column(h.name, n, (*memoryVisit).millis))), "", "", "",
			}
			if more := m.further(h.name, n); len(more) > 0 {
				row[5] = digits(median(more))
			}
			if h.reload != nil {
				after := m.column(h.name, n, (*memoryVisit).after)
				row[7], row[8] = digits(median(after)), spread(after)
				row[9] = weightsNamed[int(median(m.column(h.name, n, func(v *memoryVisit) float64 { return float64(v.Weights) })))]
			}
			t.add(row...)
		}
	}
	return t
}

func (m *memoryRun) goals() []goal {
	most := m.most()
	times := func(number func(*memoryVisit) float64) (values []float64) {
		for _, v := range m.column(heldPrepared, most, number) {
			values = append(values, v*mega/m.Bytes)
		}
		return values
	}
	return []goal{
		goal{Text: fmt.Sprintf("%d workers, × the weights", most), Limit: 1.5, AtMost: true, Unit: " ×", Values: times((*memoryVisit).megabytes)}.judge(),
		goal{Text: fmt.Sprintf("%d workers after a reload to new weights, × the weights", most), Limit: 1.5, AtMost: true, Unit: " ×", Values: times((*memoryVisit).after)}.judge(),
		goal{Text: "each further worker, the largest step", Limit: 30, AtMost: true, Unit: " MB", Values: m.steepest(heldPrepared)}.judge(),
		goal{
			Text: "share of reloads after which the new weights answer", Limit: 1, Exact: true, Values: m.fresh(heldPrepared),
		}.judge(),
	}
}

// fresh returns, one a round, which part of a holder's reloads has brought the new weights.
func (m *memoryRun) fresh(h string) (values []float64) {
	for round := range m.Rounds {
		good, all := 0, 0
		for _, v := range m.Visits {
			if v.Holder == h && v.Round == round {
				all++
				good += v.Weights
			}
		}
		if all > 0 {
			values = append(values, float64(good)/float64(all))
		}
	}
	return values
}
