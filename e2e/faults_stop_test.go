package e2e

import (
	"strings"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// clocks are short enough to wait for, and long enough for a busy machine.
const clocks = "timeouts: {heartbeat: 2s, drain: 4s, request: 4s}\n"

// TestOldWorkerStops stops an old worker's process (SIGSTOP): before the commit its
// heartbeat clock ends it, afterwards its drain clock; the reload ends all the same.
func TestOldWorkerStops(t *testing.T) {
	for _, c := range []struct{ name, phase, trial, held, clock string }{
		{"before the commit", "trial: ", "5s", "none", "timeouts.heartbeat"},
		{"after the commit", "rest: 1", "1ms", "1", "timeouts.drain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for clocks
			f := begin(t, testkit.Options{}, clocks)
			g, end := f.load(load.Options{Conns: clients, Think: think, Timeout: testkit.Limit})
			wait := newGate(t)
			f.configure(clocks + "reload: {bake: 1ms, trial: " + c.trial + ", max_surge: 2}\n" + gated(t, wait, c.held))
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
			f := begin(t, testkit.Options{}, clocks+"reload: "+c.reload+"\n")
			g, end := f.load(load.Options{Conns: clients, Think: think, Timeout: testkit.Limit})
			r := f.reload()
			r.await(c.phase)
			canary := f.worker(r.generation, 0)
			answers(t, g, c.later)
			if n := f.freeze(canary); n > c.most {
				t.Errorf("the canary held %d connections, at most %d should be", n, c.most)
			}
			r.end(ipc.ExitRolledBack, "timeouts.heartbeat (2s)")
			answers(t, g, 4*clients)
			f.noticed(end(), clients)
		})
	}
}
