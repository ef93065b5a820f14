package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"preforkd/internal/load"
)

// balanceCell is one load for so many workers.
type balanceCell struct {
	Path    string `json:"path"`
	Workers int    `json:"workers"`
	Conns   int    `json:"conns"`
}

func (c balanceCell) String() string {
	return fmt.Sprintf("%s, %d workers, %d connections", strings.TrimPrefix(c.Path, "/"), c.Workers, c.Conns)
}

// The two kinds of cells.
const (
	waitPath = "/wait"
	burnPath = "/burn"
)

// limits are the goals of a cell.
func (c balanceCell) limits() (p99, rate float64) {
	if c.Path == burnPath {
		return 1.3, 0.92
	}
	return 1.2, 0.95
}

// counts tells whether the cell has goals: where there are more workers that burn than cores the
// kernel's scheduler decides who is late.
func (c balanceCell) counts(cores int) bool { return c.Path != burnPath || c.Workers <= cores }

// balances is the raw data of balance and balance-mixed.
type balances struct {
	Rounds int           `json:"rounds"`
	Cells  []balanceCell `json:"cells"`
	Runs   []*balanceRun `json:"runs"`
	chosen []balancer
}

// balance has a few clients ask one request after the other, of services with one permit a worker.
func balance(ctx context.Context, l *lab) (*result, error) {
	raw := &balances{Rounds: l.times(3)}
	var notes []string
	var err error
	if raw.chosen, notes, err = l.chosenBalancers(ctx); err != nil {
		return nil, err
	}
	for _, workers := range of(&l.options, []int{2, 4}, []int{2}) {
		for _, path := range []string{waitPath, burnPath} {
			for _, conns := range of(&l.options, []int{2, 4, 8, 16, 64}, []int{2, 16}) {
				raw.Cells = append(raw.Cells, balanceCell{path, workers, conns})
			}
		}
	}
	for round := range raw.Rounds {
		runs, err := l.among(ctx, raw.chosen, raw.Cells, round, func(s *standing, c balanceCell) (*balanceRun, error) {
			return l.balanceLoad(ctx, s, load.Options{
				Addr: s.address, Conns: c.Conns, Keepalive: true, Request: load.Get(c.Path), KeepFailures: 10,
				Warmup: of(&l.options, balanceWarmup, balanceWarmup/4), Duration: of(&l.options, balanceLasts, balanceLasts/8),
			})
		})
		if err != nil {
			return nil, err
		}
		raw.Runs = append(raw.Runs, runs...)
	}
	return &result{
		Title:  "A request waits only while every worker is busy: closed loops, one permit a worker",
		Tables: []table{raw.table("throughput", "/s", (*balanceRun).rate), raw.table("p99", " ms", (*balanceRun).p99), raw.movedTable()},
		Goals:  raw.goals(runtime.NumCPU()),
		Notes: append(append(notes, balanceNotes...),
			"wait: 10 ms in which nothing is computed; burn: 10 ms of CPU by the thread's own clock",
			fmt.Sprintf("burn with more workers than cores (here %d) has no goals: all burn at once, and it is the kernel's scheduler that is measured", runtime.NumCPU())),
		Raw: raw,
	}, nil
}

var balanceNotes = []string{
	"ideal: one process with one first-in-first-out line for as many permits as there are workers, measured twice in each cell; " + reuseport + ": the same program, a process a worker, each with a line of its own; " +
		apart + ": queue.shared: false",
	fmt.Sprintf("ratios are to the mean of the ideal's two measurements in the same round; a round counts for a goal where those are less than %.0f %% apart, in the number that is judged", 100*steady),
	"everybody stands all the time, idle while another is measured; each measurement opens its connections anew",
}

// table has a number of each cell: the ideal's own, and the others' as ratios to it.
func (b *balances) table(what, unit string, number func(*balanceRun) float64) table {
	t := table{head: []string{what, ideal, "ideal's two apart", "rounds that count"}}
	for _, s := range b.chosen {
		if s.name != ideal {
			t.head = append(t.head, s.name, "min–max")
		}
	}
	for _, c := range b.Cells {
		var own, gaps []float64
		count := 0
		for round := range b.Rounds {
			twice := b.numbers(c, ideal, round, number)
			own, gaps = append(own, twice...), append(gaps, 100*apartBy(twice))
			if apartBy(twice) < steady {
				count++
			}
		}
		cells := []string{c.String(), digits(median(own)) + unit, digits(median(gaps)) + " %", fmt.Sprintf("%d of %d", count, b.Rounds)}
		for _, s := range b.chosen {
			if s.name != ideal {
				v := compare(b.Runs, c, s.name, number)
				cells = append(cells, digits(median(v.All))+" ×", spread(v.All))
			}
		}
		t.add(cells...)
	}
	return t
}

// numbers are those of one service in one cell and round.
func (b *balances) numbers(c balanceCell, name string, round int, number func(*balanceRun) float64) (values []float64) {
	for _, r := range b.Runs {
		if r.Cell == c && r.Name == name && r.Round == round {
			values = append(values, number(r))
		}
	}
	return values
}

// movedTable has what else happened in the cells.
func (b *balances) movedTable() table {
	t := table{head: []string{"requests that were moved, of 100", ours, "failed, of " + gthread, "others at most"}}
	for _, c := range b.Cells {
		var moved []float64
		most, failed := 0.0, uint64(0)
		for _, r := range b.Runs {
			if r.Cell != c {
				continue
			}
			most = max(most, others(r.Load))
			switch r.Name {
			case ours:
				moved = append(moved, 100*r.Moved)
			case gthread:
				failed += r.Load.Report.Failures.Total()
			}
		}
		t.add(c.String(), digits(median(moved)), fmt.Sprint(failed), digits(most)+" %")
	}
	return t
}

func (b *balances) goals(cores int) (all []goal) {
	if !slices.ContainsFunc(b.chosen, func(s balancer) bool { return s.name == ours }) {
		return nil
	}
	for _, c := range b.Cells {
		if !c.counts(cores) {
			continue
		}
		p99, rate := c.limits()
		all = append(all,
			goal{Text: c.String() + ": p99, × the ideal's", Limit: p99, AtMost: true, Unit: " ×", Values: compare(b.Runs, c, ours, (*balanceRun).p99).Steady}.judge(),
			goal{Text: c.String() + ": throughput, × the ideal's", Limit: rate, Unit: " ×", Values: compare(b.Runs, c, ours, (*balanceRun).rate).Steady}.judge())
	}
	return all
}

// The load of balance-mixed: requests of two lengths, nine short ones to a long one.
const (
	shortPath  = "/short"
	longPath   = "/long"
	shortLasts = time.Millisecond
	longLasts  = 50 * time.Millisecond
	shortShare = 0.9
	mixedLoad  = 0.7 // of what so many permits can do
	mixedConns = 64  // for each of the two
)

// mixedRate is how many requests of both lengths arrive each second.
func mixedRate(workers int) float64 {
	each := shortShare*shortLasts.Seconds() + (1-shortShare)*longLasts.Seconds()
	return mixedLoad * float64(workers) / each
}

// balanceMixed has short and long requests arrive at random moments, the same ones for all.
func balanceMixed(ctx context.Context, l *lab) (*result, error) {
	raw := &balances{Rounds: l.times(3)}
	var notes []string
	var err error
	if raw.chosen, notes, err = l.chosenBalancers(ctx); err != nil {
		return nil, err
	}
	for _, workers := range of(&l.options, []int{2, 4}, []int{2}) {
		raw.Cells = append(raw.Cells, balanceCell{shortPath, workers, mixedConns})
	}
	for round := range raw.Rounds {
		runs, err := l.among(ctx, raw.chosen, raw.Cells, round, func(s *standing, c balanceCell) (*balanceRun, error) {
			short := load.Options{
				Addr: s.address, Conns: c.Conns, Keepalive: true, Request: load.Get(shortPath), KeepFailures: 10, Timeout: time.Minute,
				Rate: shortShare * mixedRate(c.Workers), Poisson: true, Seed: uint64(2 * round),
				Warmup: of(&l.options, time.Second, balanceWarmup/4), Duration: of(&l.options, 10*time.Second, balanceLasts/4),
			}
			long := short
			long.Request, long.Rate, long.Seed = load.Get(longPath), (1-shortShare)*mixedRate(c.Workers), uint64(2*round+1)
			return l.balanceLoad(ctx, s, short, long)
		})
		if err != nil {
			return nil, err
		}
		raw.Runs = append(raw.Runs, runs...)
	}
	r := &result{
		Title:  "Short requests among long ones: waits of 1 ms and 50 ms, 9 to 1, an open loop at 70 % of the capacity",
		Tables: []table{raw.table("p99 of the short ones", " ms", (*balanceRun).p99), raw.table("median of the short ones", " ms", (*balanceRun).p50), raw.movedTable()},
		Notes: append(append(notes, balanceNotes...),
			fmt.Sprintf("%.0f and %.0f requests a second for 2 and 4 workers, at Poisson's moments, the same ones for everybody in a round; latency counts from when a request was due", mixedRate(2), mixedRate(4)),
			fmt.Sprintf("%d connections for requests of either length", mixedConns)),
		Raw: raw,
	}
	for _, g := range raw.goals(runtime.NumCPU()) {
		if g.AtMost { // an open loop has no throughput but what arrives
			r.Goals = append(r.Goals, g)
		}
	}
	return r, nil
}

func (r *balanceRun) p50() float64 { return micros(r.Load.Report.Latency.P50) / 1000 }
