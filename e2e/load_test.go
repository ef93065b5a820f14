package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// sample is a request that the default model answers.
var sample = load.Post("/predict", "application/json", []byte(`{"features":[`+strings.TrimSuffix(strings.Repeat("1,", 64), ",")+`]}`))

// storm runs a load against s until the returned function is called, which returns
// its report.
func storm(t *testing.T, s *testkit.Service, o load.Options) (g *load.Generator, end func() *load.Report) {
	t.Helper()
	return stormAt(t, strings.TrimPrefix(s.URL, "http://"), o)
}

// stormAt is storm for an address, as load.Options have it.
func stormAt(t *testing.T, address string, o load.Options) (g *load.Generator, end func() *load.Report) {
	t.Helper()
	o.Addr = address
	if o.Request == nil && o.Each == nil {
		o.Request = sample
	}
	g, err := load.New(o)
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		report *load.Report
		err    error
	}
	ended := make(chan outcome, 1)
	go func() { // ends with Stop
		r, err := g.Run(context.Background())
		ended <- outcome{r, err}
	}()
	return g, func() *load.Report {
		t.Helper()
		g.Stop()
		got := <-ended
		if got.err != nil {
			t.Fatal(got.err)
		}
		t.Logf("%s", got.report)
		return got.report
	}
}

// answers waits until n more requests have been answered.
func answers(t *testing.T, g *load.Generator, n uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Limit)
	defer cancel()
	if err := g.WaitMore(ctx, n); err != nil {
		t.Fatal(err)
	}
}

// await waits until the load's progress is as cond says.
func await(t *testing.T, g *load.Generator, what string, cond func(load.Progress) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Limit)
	defer cancel()
	if err := g.Wait(ctx, cond); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestEveryWorkerServes(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Workers: 4, Set: []string{"http.worker_header=true"}})
	g, end := storm(t, s, load.Options{Conns: 16})
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Limit)
	defer cancel()
	if err := g.Wait(ctx, func(p load.Progress) bool { return len(p.Workers) == 4 }); err != nil {
		t.Errorf("%v: only %v answered", err, g.Progress().Workers)
	}
	if r := end(); r.Failures.Total() > 0 {
		t.Errorf("%v: %+v", r.Failures, r.First)
	}
}

// TestKillsUnderLoad kills a worker again and again while clients are busy: the service
// answers throughout, and only connections that a dead worker owned notice.
func TestKillsUnderLoad(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Set: []string{"http.worker_header=true", "worker.max_crashes=1000", "worker.max_backoff=1ms"}})
	const conns = 16
	kills := times(50, 500)
	g, end := storm(t, s, load.Options{Conns: conns, Think: time.Millisecond, Keepalive: true, KeepFailures: everyFailure, Timeout: testkit.Limit})
	toll := newToll(t, strings.TrimPrefix(s.URL, "http://"))
	for i := range kills {
		answers(t, g, 50)
		victim := s.Workers()[i%2]
		n := s.Reports()
		toll.strike(victim)
		n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
		answers(t, g, 10) // while it is away
		s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	}
	r := end()
	toll.noticed(r, conns)
	t.Logf("%d kills, %d requests, failures: %v", kills, r.Requests, r.Failures)
}
