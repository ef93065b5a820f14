package rollout

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// worlds are the pools of a simulated service.
type worlds struct {
	pools     []*world
	joint     *Joint
	released  map[int]bool
	finished  *Action
	narrative []string
}

// carryOut lets each pool do what concerns it.
func (ws *worlds) carryOut(actions []Action) {
	for _, a := range actions {
		ws.narrative = append(ws.narrative, fmt.Sprintf("  pool %d: %s", a.Pool, a))
		switch a.Do {
		case Commit:
			for _, w := range ws.pools {
				w.commit()
			}
		case Release:
			if ws.released[a.Pool] || ws.joint.Has(a.Pool) {
				ws.pools[a.Pool].complain("released twice, or too early")
			}
			ws.released[a.Pool] = true
		case Finish:
			if ws.finished != nil {
				ws.pools[0].complain("a second end")
			}
			ws.finished = &a
			for _, w := range ws.pools {
				w.checkEnd(a)
			}
		default:
			ws.pools[a.Pool].carryOut([]Action{a})
		}
	}
}

// wrong returns what any pool complains of.
func (ws *worlds) wrong() (all []string) {
	for i, w := range ws.pools {
		for _, text := range w.wrong {
			all = append(all, fmt.Sprintf("pool %d: %s", i, text))
		}
	}
	return all
}

// TestRandomJoints runs random reloads of services of several pools, some of which come
// or go: whatever happens, all pools commit or none does, and each keeps what a reload of
// it alone promises.
func TestRandomJoints(t *testing.T) {
	n := 30000
	if testing.Short() {
		n = 3000
	}
	seen := [outcomes]int{}
	for seed := range n {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		dry := r.IntN(10) == 0
		var plans []Plan
		for i := range 1 + r.IntN(4) {
			p := Plan{
				New: 1 + r.IntN(3), Surge: 1 + r.IntN(3), Floor: r.IntN(4),
				Bake: time.Duration(r.IntN(2)), Trial: time.Duration(r.IntN(2)), DryRun: dry,
			}
			if i > 0 && r.IntN(4) == 0 {
				p.New = 0
			}
			if i == 0 || p.New == 0 || r.IntN(4) > 0 {
				for range 1 + r.IntN(3) {
					p.Old = append(p.Old, r.IntN(5) > 0)
				}
			}
			plans = append(plans, p)
		}
		ws := runAll(r, plans)
		if wrong := ws.wrong(); len(wrong) > 0 {
			t.Fatalf("seed %d, %+v:\n%s\n%s", seed, plans, strings.Join(ws.narrative, "\n"), strings.Join(wrong, "\n"))
		}
		seen[ws.finished.Outcome]++
	}
	for o, count := range seen {
		if count < n/200 {
			t.Errorf("%d of %d reloads ended as %s: the histories are too tame", count, n, Outcome(o))
		}
	}
}

// runAll lets one reload happen.
func runAll(r *rand.Rand, plans []Plan) *worlds {
	ws := &worlds{released: map[int]bool{}}
	for _, p := range plans {
		ws.pools = append(ws.pools, newWorld(p))
	}
	trouble := []float64{0, 0.005, 0.02, 0.1, 0.5}[r.IntN(5)]
	var actions []Action
	ws.joint, actions = BeginAll(plans)
	ws.carryOut(actions)
	for i := 0; ws.finished == nil && len(ws.wrong()) == 0; i++ {
		if i > 10000 {
			ws.pools[0].complain("it does not end")
			break
		}
		pool, e, ok := ws.next(r, trouble)
		if !ok {
			ws.pools[0].complain("nothing is under way, and it has not ended")
			break
		}
		ws.happen(pool, e)
		ws.carryOut(ws.joint.Handle(e))
		if ws.joint.Committed() != (ws.pools[0].commits == 1) {
			ws.pools[0].complain("Committed() is %v", ws.joint.Committed())
		}
	}
	return ws
}

// next draws what happens, in some pool where something can.
func (ws *worlds) next(r *rand.Rand, trouble float64) (pool int, e Event, ok bool) {
	switch r.IntN(600) {
	case 0:
		return 0, Event{Kind: OnAbort}, true
	case 1:
		return 0, Event{Kind: OnStop}, true
	}
	for try := range 20 * len(ws.pools) {
		pool = r.IntN(len(ws.pools))
		if try >= 19*len(ws.pools) { // nothing by chance: look at each, and nothing bad
			pool, trouble = try%len(ws.pools), 0
		}
		if ws.released[pool] {
			continue
		}
		if e, ok = ws.pools[pool].next(r, trouble); ok {
			e.Pool = pool
			return pool, e, true
		}
	}
	return 0, Event{}, false
}

// happen makes e true.
func (ws *worlds) happen(pool int, e Event) {
	ws.narrative = append(ws.narrative, fmt.Sprintf("pool %d: %s %s (%s)", pool, e.Worker, e.Kind, ws.joint.parts[pool].Phase()))
	for i, w := range ws.pools {
		switch {
		case i == pool || e.Kind == OnAbort || e.Kind == OnStop:
			w.happen(e, ws.joint.parts[i].Phase())
		}
		if ws.joint.parts[i].Phase() == Waiting { // what it has when its turn comes is what counts
			w.floor = min(w.plan.Floor, w.serving(), w.plan.New)
		}
	}
}

// TestJointHistory is a reload of three pools, of which one is new and one goes.
func TestJointHistory(t *testing.T) {
	j, got := BeginAll([]Plan{
		{Old: []bool{true}, New: 1, Surge: 1, Floor: 1},
		{New: 1, Surge: 1},
		{Old: []bool{true}, Surge: 1},
	})
	wantJoint(t, got, "0 report canary, 0 of 1 ready", "0 start new 0 held")
	alone := func(pool int) {
		t.Helper()
		for _, e := range []Event{
			{Kind: OnReady, Worker: canary}, {Kind: OnPassed}, {Kind: OnPassed}, {Kind: OnCounted, Canary: Tally{Answers: 500}},
		} {
			e.Pool = pool
			got = j.Handle(e)
		}
	}
	alone(0)
	wantJoint(t, got, "0 report rest, 1 of 1 ready", "0 report others, 1 of 1 ready", "1 report canary, 0 of 1 ready", "1 start new 0 held")
	alone(1)
	wantJoint(t, got, "1 report rest, 1 of 1 ready", "1 report others, 1 of 1 ready", "2 report others, 0 of 0 ready",
		"0 commit", "0 report drain, 1 of 1 ready", "0 drain old 0", "1 report drain, 1 of 1 ready", "1 release", "2 report drain, 0 of 0 ready", "2 drain old 0")
	wantJoint(t, j.Handle(Event{Kind: OnEnded, Worker: Worker{Old, 0}}), "0 release")
	wantJoint(t, j.Handle(Event{Kind: OnEnded, Pool: 2, Worker: Worker{Old, 0}}), "2 release", "0 finish, committed")
}

// TestJointFails: the second pool's canary does not boot, and the first one is put back.
func TestJointFails(t *testing.T) {
	j, _ := BeginAll([]Plan{{Old: []bool{true}, New: 1, Surge: 1, Floor: 1}, {Old: []bool{true}, New: 1, Surge: 1, Floor: 1}})
	for _, e := range []Event{{Kind: OnReady, Worker: canary}, {Kind: OnPassed}, {Kind: OnPassed}, {Kind: OnCounted, Canary: Tally{Answers: 500}}} {
		j.Handle(e)
	}
	got := j.Handle(Event{Kind: OnEnded, Pool: 1, Worker: canary, Why: "exit status 3"})
	const why = "the canary did not become ready: exit status 3"
	wantJoint(t, got, "1 report undo, 0 of 1 ready: "+why, "1 release", "0 report undo, 1 of 1 ready: aborted: "+why, "0 drain new 0")
	wantJoint(t, j.Handle(Event{Kind: OnEnded, Worker: canary}), "0 release", "1 finish, rolled back: "+why)
}

func wantJoint(t *testing.T, got []Action, want ...string) {
	t.Helper()
	var have []string
	for _, a := range got {
		have = append(have, fmt.Sprintf("%d %s", a.Pool, a))
	}
	if strings.Join(have, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}
