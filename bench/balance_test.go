package main

import (
	"slices"
	"testing"
	"time"

	"preforkd/internal/load"
)

func TestCounterIsParsed(t *testing.T) {
	got, err := counter([]byte("# TYPE queued counter\nqueued{pool=\"a\"} 3\nqueued{pool=\"b c\"} 1e+03\nqueueds 9\nqueued 1\n"), "queued")
	if err != nil || got != 1004 {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "queueds 9\n", "queued x\n", "queued{a=\"b\"}\n"} {
		if got, err := counter([]byte(text), "queued"); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// ran is a run of so many answers a second.
func ran(name string, c balanceCell, round, rate int) *balanceRun {
	r := &balanceRun{Name: name, Cell: c, Round: round, Load: &visit{Report: &load.Report{Answers: uint64(rate), Elapsed: time.Second}}}
	r.Load.Report.Latency.P99 = time.Second / time.Duration(rate)
	return r
}

// TestBalanceIsCompared with the ideal of the same cell and round, and judged where that was steady.
func TestBalanceIsCompared(t *testing.T) {
	cells := []balanceCell{{waitPath, 2, 16}, {burnPath, 2, 16}, {burnPath, 4, 16}}
	b := &balances{Rounds: 2, Cells: cells, chosen: balancers}
	for _, c := range cells {
		b.Runs = append(b.Runs,
			ran(ideal, c, 0, 98), ran(ours, c, 0, 95), ran(ideal, c, 0, 102),
			ran(ideal, c, 1, 190), ran(ours, c, 1, 100), ran(ideal, c, 1, 210), // 10 % apart
		)
	}
	got := compare(b.Runs, cells[0], ours, (*balanceRun).rate)
	if !slices.Equal(got.All, []float64{0.95, 0.5}) || !slices.Equal(got.Steady, []float64{0.95}) {
		t.Errorf("%+v", got)
	}
	if got := compare(b.Runs, cells[0], apart, (*balanceRun).rate); got.All != nil {
		t.Errorf("nobody was measured: %+v", got)
	}
	var verdicts []string
	for _, g := range b.goals(2) {
		verdicts = append(verdicts, g.Text+" "+g.Verdict)
	}
	if want := []string{
		"wait, 2 workers, 16 connections: p99, × the ideal's PASS",
		"wait, 2 workers, 16 connections: throughput, × the ideal's PASS",
		"burn, 2 workers, 16 connections: p99, × the ideal's PASS",
		"burn, 2 workers, 16 connections: throughput, × the ideal's PASS",
	}; !slices.Equal(verdicts, want) {
		t.Errorf("%q", verdicts)
	}
	if n := len(b.goals(4)); n != 6 {
		t.Errorf("%d goals on four cores", n)
	}
	var workers []int
	for n, group := range byWorkers(cells) {
		workers = append(workers, n, len(group))
	}
	if !slices.Equal(workers, []int{2, 2, 4, 1}) {
		t.Errorf("%v", workers)
	}
}

// TestMixedRate: nine of 1 ms and one of 50 ms are 59 ms of a permit.
func TestMixedRate(t *testing.T) {
	if got, want := mixedRate(2), 0.7*2*10/0.059; got < want-0.01 || got > want+0.01 {
		t.Errorf("%v, want %v", got, want)
	}
}
