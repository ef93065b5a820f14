package e2e

import (
	"strings"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// Clocks short enough to wait for, and long enough for a busy machine; the one that a test
// is not about does not fire.
const (
	beating  = "timeouts: {heartbeat: 5s, drain: 10m}\n"
	draining = "timeouts: {heartbeat: 10m, drain: 8s}\n"
)

// TestOldWorkerStops stops an old worker's process (SIGSTOP): before the commit its
// heartbeat clock ends it, afterwards its drain clock; the reload ends all the same.
func TestOldWorkerStops(t *testing.T) {
	for _, c := range []struct{ name, phase, trial, held, clocks, clock string }{
		{"before the commit", "trial: ", "10s", "none", beating, "timeouts.heartbeat"},
		{"after the commit", "rest: 1", "1ms", "1", draining, "timeouts.drain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for clocks
			f := begin(t, testkit.Options{}, c.clocks)
			g, end := f.load(load.Options{Conns: clients, Think: think})
			wait := newGate(t)
			f.configure(c.clocks + "reload: {bake: 1ms, trial: " + c.trial + ", max_surge: 2}\n" + gated(t, wait, c.held))
			victim := f.worker(1, 1)
			r := f.reload()
			r.await(c.phase)
			f.freeze(victim)
			wait.open()
			r.end(0)
			answers(t, g, 4*clients)
			f.noticed(end(), clients)
			if text := f.LogText(); !strings.Contains(text, "clock="+c.clock) {
				t.Errorf("%s has not fired", c.clock)
			}
		})
	}
}

// TestCanaryStops stops the canary's process: the reload is taken back by its heartbeat
// clock. What it had been given is lost with it, and nothing else.
func TestCanaryStops(t *testing.T) {
	for _, c := range []struct {
		name, phase, reload string
		later               uint64 // by so many answers
		most                int
	}{
		{"bake", "bake: ", "{bake: 1h}", 0, 0},
		{"before it takes", "trial: ", "{bake: 1ms, trial: 1h}", 0, clients / 2},
		{"after it has taken", "trial: ", "{bake: 1ms, trial: 1h}", 4 * clients, clients / 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := begin(t, testkit.Options{}, beating+"reload: "+c.reload+"\n")
			g, end := f.load(load.Options{Conns: clients, Think: think})
			r := f.reload()
			r.await(c.phase)
			canary := f.worker(r.generation, 0)
			answers(t, g, c.later)
			if n := f.freeze(canary); n > c.most {
				t.Errorf("the canary held %d connections, at most %d should be", n, c.most)
			}
			r.end(ipc.ExitRolledBack, "timeouts.heartbeat (5s)")
			answers(t, g, 4*clients)
			f.noticed(end(), clients)
		})
	}
}
