package e2e

import (
	"fmt"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

const clients = 64

// think leaves the processors time for what a test is about.
const think = 30 * time.Millisecond

// quick keeps a reload's waits short, in a configuration file.
const quick = "reload: {bake: 100ms, trial: 300ms, max_surge: 2}\n"

// TestNewWorkerKilled kills the canary in each phase, and another new worker in the rest:
// the reload is taken back.
func TestNewWorkerKilled(t *testing.T) {
	long := newGate(t)
	const forever = "reload: {bake: %s, trial: %s, max_surge: 2}\n"
	f := begin(t, testkit.Options{}, "log: {level: info}\n")
	before := fmt.Sprint(f.Workers())
	g, end := f.load(load.Options{Conns: clients, Think: think})
	for _, c := range []struct {
		name, phase string
		config      string
		warmup      int
		slot        int
		words       string
		most        int // connections that the victim may own
	}{
		{"canary", "canary: ", gated(t, long, "0"), 1, 0, "did not become ready", 0},
		{"self-test", "self-test: ", "", 8192, 0, "failed its self-test", 0},
		{"bake", "bake: ", fmt.Sprintf(forever, "1h", "1h"), 1, 0, "failed during the bake", 0},
		{"last self-test", "last self-test: ", fmt.Sprintf(forever, "1ms", "1h"), 1, 0, "rolled back", clients / 2},
		{"trial", "trial: ", fmt.Sprintf(forever, "1ms", "1h"), 1, 0, "failed its trial", clients / 2},
		{"rest", "rest: ", fmt.Sprintf(forever, "1ms", "1ms") + gated(t, long, "1"), 1, 1, "worker 1 of the new generation failed", clients / 2},
	} {
		f.square("1", product(), c.warmup)
		f.configure(c.config)
		r := f.reload()
		r.await(c.phase)
		victim := f.worker(r.generation, c.slot)
		answers(t, g, clients)
		if n := f.strike(victim); n > c.most {
			t.Errorf("%s: %d connections were the victim's, at most %d should be", c.name, n, c.most)
		}
		r.end(ipc.ExitRolledBack, c.words, "killed by signal 9")
		answers(t, g, 2*clients)
		if got := fmt.Sprint(f.Workers()); got != before {
			t.Errorf("%s: workers were %s and are %s", c.name, before, got)
		}
	}
	long.open()
	f.noticed(end(), clients)
}

// TestOldWorkerKilled kills an old worker in each phase. Until the commit it is replaced
// from its own manifest, whatever the files say now, and the reload goes on.
func TestOldWorkerKilled(t *testing.T) {
	f := begin(t, testkit.Options{}, quick)
	events := f.events()
	g, end := f.load(load.Options{Conns: clients, Think: think})
	for _, c := range []struct {
		phase  string
		held   string // which new workers wait until the old one has a successor
		warmup int
	}{
		{"canary: ", "0", 1},
		{"self-test: ", "", 1024},
		{"bake: ", "", 1},
		{"trial: ", "", 1},
		{"rest: 1", "1", 1},
		{"drain: ", "", 1},
	} {
		wait := newGate(t)
		config := quick
		if c.held != "" {
			config += gated(t, wait, c.held)
		}
		f.configure(config)
		f.square("1", product(), c.warmup)
		old := f.generation()
		victim := f.worker(old, 1)
		others := append([]int{victim}, f.Workers()...)
		r := f.reload()
		r.await(c.phase)
		f.strike(victim)
		if c.held != "" {
			events.successor(old, others...)
			if got := f.worker(old, 1); got == victim {
				t.Errorf("%s: the dead worker %d is still in its slot", c.phase, got)
			}
		}
		wait.open()
		r.end(0)
		if got := f.generation(); got != old+1 {
			t.Errorf("%sgeneration %d serves", c.phase, got)
		}
		answers(t, g, 4*clients)
	}
	f.noticed(end(), clients)
}

// TestBothKilled kills the canary and an old worker at once: the reload is taken back and
// the old generation is whole again.
func TestBothKilled(t *testing.T) {
	f := begin(t, testkit.Options{}, "reload: {bake: 1h}\n")
	events := f.events()
	g, end := f.load(load.Options{Conns: clients, Think: think})
	before := f.Workers()
	victim := f.worker(1, 0)
	r := f.reload()
	r.await("bake: ")
	canary := f.worker(r.generation, 0)
	if n := f.strike(canary); n > 0 {
		t.Errorf("the canary owned %d connections before its trial", n)
	}
	f.strike(victim)
	r.end(ipc.ExitRolledBack, "failed during the bake")
	events.successor(1, before...)
	answers(t, g, 4*clients)
	f.noticed(end(), clients)
	st := status1(t, f.socket)
	if len(st.Pools[0].Slots) != 2 || st.Generation != 1 {
		t.Errorf("%+v", st)
	}
}
