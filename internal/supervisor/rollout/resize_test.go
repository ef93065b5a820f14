package rollout

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestRandomResizes lets random changes of a pool's size happen in which random things go
// wrong: each ends, whole or undone, and no process is forgotten or told twice.
func TestRandomResizes(t *testing.T) {
	seen := map[Outcome]int{}
	for seed := range 20000 {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		if o, wrong := resizeAtRandom(r); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		} else {
			seen[o]++
		}
	}
	for _, o := range []Outcome{Committed, RolledBack, Stopped} {
		if seen[o] < 100 {
			t.Errorf("%d of them ended as %s: the histories are too tame", seen[o], o)
		}
	}
}

func resizeAtRandom(r *rand.Rand) (Outcome, string) {
	from, n := r.IntN(4), r.IntN(5)
	procs := map[int]*process{}
	var change *Resize
	var actions []Action
	grows := r.IntN(2) == 0
	if grows {
		change, actions = Grow(from, from+n)
	} else {
		ready := make([]bool, n)
		for i := range ready {
			ready[i] = r.IntN(3) > 0
			procs[from+i] = &process{ready: ready[i]}
		}
		change, actions = Shrink(from, ready)
	}
	trouble := []float64{0, 0.1, 0.5}[r.IntN(3)]
	stopped := false
	for range 200 {
		for _, a := range actions {
			p := procs[a.Worker.Slot]
			switch a.Do {
			case Start:
				if p != nil || !grows {
					return 0, fmt.Sprintf("%s: %+v", a, p)
				}
				procs[a.Worker.Slot] = &process{}
			case Drain, Remove:
				if p == nil || p.told || p.ready != (a.Do == Drain) {
					return 0, fmt.Sprintf("%s: %+v", a, p)
				}
				p.told = true
			case Finish:
				if stopped { // whatever runs is the supervisor's
					return a.Outcome, ""
				}
				return a.Outcome, checkResize(a, procs, grows, n)
			default:
				return 0, a.String()
			}
		}
		e := resizeEvent(r, procs, from, n, trouble)
		stopped = e.Kind == OnStop
		actions = change.Handle(e)
	}
	return 0, "it does not end"
}

// checkResize makes sure that all workers are there, or none.
func checkResize(a Action, procs map[int]*process, grows bool, n int) string {
	if (a.Reason != "") != (a.Outcome == RolledBack) {
		return a.String()
	}
	whole := a.Outcome == Committed && grows
	if whole && len(procs) != n || !whole && len(procs) > 0 {
		return fmt.Sprintf("%s, and %d processes of %d", a, len(procs), n)
	}
	for slot, p := range procs {
		if !p.ready || p.told || p.lost {
			return fmt.Sprintf("%s, and %d: %+v", a, slot, p)
		}
	}
	return ""
}

// resizeEvent draws something that may happen, and makes it true.
func resizeEvent(r *rand.Rand, procs map[int]*process, from, n int, trouble float64) Event {
	if r.IntN(60) == 0 {
		return Event{Kind: OnStop}
	}
	if r.IntN(60) == 0 {
		return Event{Kind: OnAbort, Why: "memory ran short"}
	}
	slot := from - 1 + r.IntN(n+2) // one that is not the change's, too
	e := Event{Kind: OnReady, Worker: Worker{New, slot}}
	p := procs[slot]
	switch {
	case p == nil:
	case p.told || p.lost:
		e.Kind = OnEnded
		delete(procs, slot)
	case r.Float64() < trouble && r.IntN(2) == 0:
		e.Kind, e.Why = OnLost, "boot clock"
		p.lost = true
	case r.Float64() < trouble:
		e.Kind, e.Why = OnEnded, "exit status 3"
		delete(procs, slot)
	default:
		p.ready = true
	}
	return e
}
