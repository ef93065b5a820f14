package e2e

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// TestKilledWhileHandingOver kills an old worker in the act of giving its connections away,
// and a new one in the act of taking them.
func TestKilledWhileHandingOver(t *testing.T) {
	const endless = "reload: {bake: 1ms, trial: 1h, max_surge: 2}\n" // it ends with the canary
	const conns = 4 * clients                                        // most of them idle: they go all at once
	f := begin(t, testkit.Options{}, quick)
	f.square("1", product(), 1536) // a self-test takes long enough to look around before the trial
	// Such requests do not move, so that connections come and go only as they are handed over.
	g, end := f.load(load.Options{Conns: conns, Think: 100 * time.Millisecond, Request: inChunks("/predict", ones)})
	acts := []handover{
		{"giver in the trial", quick, "last self-test: ", 0, false, 0},
		{"giver in the drain", quick, "rest: 1", 0, false, 0},
		{"taker in the trial", endless, "last self-test: ", ipc.ExitRolledBack, true, 0},
		{"taker in the drain", quick, "rest: 1", 0, true, 0},
	}
	// A process can only be caught in the act, not told to wait there: those that were not
	// caught are killed anyhow, and count for nothing.
	full, tries := times(1, 10), 0
	for missing := true; missing; tries++ {
		missing = false
		for i := range acts {
			if acts[i].caught >= full {
				continue
			}
			if acts[i].kill(f, conns); acts[i].caught < full {
				missing = true
			}
			answers(t, g, 2*conns)
		}
		if tries > 20*full {
			t.Fatalf("the acts are never caught: %+v", acts)
		}
	}
	t.Logf("%d rounds: %+v", tries, acts)
	f.noticed(end(), conns)
}

// handover is one side of a moment in a reload when connections move.
type handover struct {
	name          string
	config, phase string // the phase before it
	exit          int    // of the reload
	taker         bool   // the victim is the canary, otherwise an old worker
	caught        int    // how many have been killed in the act
}

// kill reloads, and kills the victim as soon as it is seen giving or taking. Whoever gives
// to a taker is stopped with it, which shows that it had not got everything.
func (h *handover) kill(f *site, conns int) {
	f.t.Helper()
	f.configure(h.config)
	givers := f.Workers()
	victim := f.worker(f.generation(), 1)
	r := f.reload()
	r.await(h.phase)
	if h.taker {
		victim = f.worker(r.generation, 0)
	}
	had, before := len(testkit.Held(f.t, victim, f.address)), descriptors(victim)
	for missed := time.Now().Add(5 * time.Second); time.Now().Before(missed); {
		now := descriptors(victim)
		if now < 0 || h.taker && now > before+1 || !h.taker && now < before-1 {
			break // clients' connections are what comes and goes now
		}
	}
	if testkit.Freeze(f.t, victim) {
		rest, keep := 0, 0 // what the givers have, and will have
		if h.taker {
			rest = f.held(givers)
		}
		if h.exit != 0 { // the trial: everybody gives the canary's share
			keep = conns - conns/(len(givers)+1)
		}
		owns := len(testkit.Held(f.t, victim, f.address))
		if h.taker && owns > had && rest > keep || !h.taker && owns > 0 && owns < had {
			h.caught++
		}
	}
	if h.taker {
		f.strike(victim)
		for _, pid := range givers {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
		}
	} else {
		f.strikeGiver(victim)
	}
	r.end(h.exit)
	f.whole()
}

// held stops these processes and returns how many connections they have not given away.
func (f *site) held(pids []int) (n int) {
	f.t.Helper()
	for _, pid := range pids {
		if testkit.Freeze(f.t, pid) {
			n += len(testkit.Held(f.t, pid, f.address))
		}
	}
	return n
}

// descriptors returns how many descriptors pid has; -1: it has ended.
func descriptors(pid int) int {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return -1
	}
	return len(names)
}
