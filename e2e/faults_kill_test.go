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
const think = 10 * time.Millisecond

// quick keeps a reload's waits short, in a configuration file.
const quick = "reload: {bake: 100ms, trial: 300ms, max_surge: 2}\n"

// TestKilledWhileHandingOver kills an old worker in the act of giving its connections
// away, and a new one in the act of taking them, while every client is busy.
func TestKilledWhileHandingOver(t *testing.T) {
	stormy(t)
	const endless = "reload: {bake: 1ms, trial: 1h, max_surge: 2}\n" // it ends with the canary
	f := begin(t, testkit.Options{}, quick)
	g, end := f.load(load.Options{Conns: clients})
	var owners []int
	kills := 0
	for round := range times(1, 10) {
		for _, c := range []struct {
			config, phase string
			exit          int
			taker         bool
		}{
			{quick, "trial: ", 0, false},
			{quick, "drain: ", 0, false},
			{endless, "trial: ", ipc.ExitRolledBack, true},
			{quick, "drain: ", 0, true},
		} {
			f.configure(c.config)
			givers, victim := f.Workers(), f.worker(f.generation(), 1)
			r := f.reload()
			r.await("self-test: ")
			if c.taker {
				victim = f.worker(r.generation, 0)
				owners = append(owners, givers...) // who answered last on what had just come
			}
			r.await(c.phase)
			answers(t, g, uint64(1+20*round)) // at another moment each time
			strike(t, victim)
			owners, kills = append(owners, victim), kills+1
			r.end(c.exit)
			f.whole()
			answers(t, g, 8*clients)
		}
	}
	noticed(t, end(), clients, kills*clients, owners...)
}

// TestNewWorkerKilled kills the canary in each phase, and another new worker in the rest:
// the reload is taken back.
func TestNewWorkerKilled(t *testing.T) {
	stormy(t)
	long := newGate(t)
	const forever = "reload: {bake: %s, trial: %s, max_surge: 2}\n"
	f := begin(t, testkit.Options{}, "log: {level: info}\n")
	before := fmt.Sprint(f.Workers())
	g, end := f.load(load.Options{Conns: clients, Think: think})
	dead := append([]int{}, f.Workers()...) // in the trial some of theirs are with the canary
	for _, c := range []struct {
		name, phase string
		config      string
		warmup      int
		slot        int
		words       string
		most        uint64 // clients whose connections the victim may have had
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
		was := g.Progress()
		strike(t, victim)
		dead = append(dead, victim)
		r.end(ipc.ExitRolledBack, c.words, "killed by signal 9")
		answers(t, g, 2*clients)
		if got := fmt.Sprint(f.Workers()); got != before {
			t.Errorf("%s: workers were %s and are %s", c.name, before, got)
		}
		is := g.Progress()
		if n := is.Failures.Total() + is.IdleCloses - was.Failures.Total() - was.IdleCloses; n > c.most {
			t.Errorf("%s: %d connections noticed, at most %d were the canary's", c.name, n, c.most)
		}
	}
	long.open()
	noticed(t, end(), clients, 3*clients/2, dead...)
}

// TestOldWorkerKilled kills an old worker in each phase. Until the commit it is replaced
// from its own manifest, whatever the files say now, and the reload goes on.
func TestOldWorkerKilled(t *testing.T) {
	stormy(t)
	f := begin(t, testkit.Options{}, quick)
	events := f.events()
	g, end := f.load(load.Options{Conns: clients, Think: think})
	dead, kills := []int{}, 0
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
		strike(t, victim)
		dead, kills = append(dead, victim), kills+1
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
	noticed(t, end(), clients, kills*clients, dead...)
}

// TestBothKilled kills the canary and an old worker at once: the reload is taken back and
// the old generation is whole again.
func TestBothKilled(t *testing.T) {
	stormy(t)
	f := begin(t, testkit.Options{}, "reload: {bake: 1h}\n")
	events := f.events()
	g, end := f.load(load.Options{Conns: clients, Think: think})
	before := f.Workers()
	victim := f.worker(1, 0)
	r := f.reload()
	r.await("bake: ")
	canary := f.worker(r.generation, 0)
	strike(t, canary)
	strike(t, victim)
	r.end(ipc.ExitRolledBack, "failed during the bake")
	events.successor(1, before...)
	answers(t, g, 4*clients)
	noticed(t, end(), clients, clients, victim)
	st := status1(t, f.socket)
	if len(st.Pools[0].Slots) != 2 || st.Generation != 1 {
		t.Errorf("%+v", st)
	}
}
