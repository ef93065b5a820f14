package e2e

import (
	"strconv"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// TestLatencyWhileModelsAreLoaded prints what a client of one model notices of another one being
// loaded again and again: how long its answers take beside how long they take without.
func TestLatencyWhileModelsAreLoaded(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: it measures")
	}
	f := controlled(t, testkit.Options{})
	f.version("other", 1)
	f.version("other", 2)
	must(t, f.socket, []string{"models", "load", "other"})
	measured := func(during func(g *load.Generator)) *load.Report {
		t.Helper()
		g, end := storm(t, f.Service, load.Options{Conns: 2, Think: 5 * time.Millisecond, Keepalive: true, Timeout: testkit.Limit})
		during(g)
		return end()
	}
	for range times(1, 3) {
		without := measured(func(g *load.Generator) { answers(t, g, uint64(times(1000, 10000))) })
		loads := times(10, 100)
		with := measured(func(*load.Generator) {
			for i := range loads {
				must(t, f.socket, []string{"models", "load", "other", "--version", strconv.Itoa(1 + i%2)})
			}
		})
		untouched(t, without, 2)
		untouched(t, with, 2)
		t.Logf("p50, p99 without: %v, %v; while a model is loaded %d times: %v, %v (%d requests)",
			without.Latency.P50, without.Latency.P99, loads, with.Latency.P50, with.Latency.P99, with.Requests)
	}
}
