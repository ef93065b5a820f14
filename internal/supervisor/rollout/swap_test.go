package rollout

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestSwap has each history of one replacement that differs from the others in its end.
func TestSwap(t *testing.T) {
	ready, lost, ended := OnReady, OnLost, OnEnded
	for _, c := range []struct {
		name          string
		there, serves bool
		events        []Event
		want          string
	}{
		{
			"as planned", true, true,
			[]Event{{Kind: ready, Worker: Worker{New, 3}}, {Kind: ended, Worker: Worker{Old, 3}}},
			"start new 3|commit|drain old 3|finish, committed",
		},
		{"the slot is empty", false, false, []Event{{Kind: ready, Worker: Worker{New, 3}}}, "start new 3|commit|finish, committed"},
		{
			"the old one still starts", true, false,
			[]Event{{Kind: ready, Worker: Worker{New, 3}}, {Kind: ended, Worker: Worker{Old, 3}}},
			"start new 3|commit|remove old 3|finish, committed",
		},
		{
			"the old one becomes ready meanwhile", true, false,
			[]Event{{Kind: ready, Worker: Worker{Old, 3}}, {Kind: ready, Worker: Worker{New, 3}}, {Kind: ended, Worker: Worker{Old, 3}}},
			"start new 3|commit|drain old 3|finish, committed",
		},
		{
			"the new one cannot be started", true, true,
			[]Event{{Kind: ended, Worker: Worker{New, 3}, Why: "exit status 3"}},
			"start new 3|finish, rolled back: its replacement failed: exit status 3",
		},
		{
			"the new one is lost, then ends", true, true,
			[]Event{{Kind: lost, Worker: Worker{New, 3}, Why: "boot clock"}, {Kind: ended, Worker: Worker{New, 3}, Why: "killed"}},
			"start new 3|finish, rolled back: its replacement failed: boot clock",
		},
		{
			"the old one dies first", true, true,
			[]Event{{Kind: ended, Worker: Worker{Old, 3}}, {Kind: ready, Worker: Worker{New, 3}}},
			"start new 3|commit|finish, committed",
		},
		{
			"both die", true, true,
			[]Event{{Kind: ended, Worker: Worker{Old, 3}}, {Kind: ended, Worker: Worker{New, 3}, Why: "x"}},
			"start new 3|finish, rolled back: its replacement failed: x",
		},
		{
			"the old one hangs as the new one is ready", true, true,
			[]Event{{Kind: lost, Worker: Worker{Old, 3}}, {Kind: ready, Worker: Worker{New, 3}}, {Kind: ended, Worker: Worker{Old, 3}}},
			"start new 3|commit|finish, committed",
		},
		{
			"the new one dies while the old one drains", true, true,
			[]Event{{Kind: ready, Worker: Worker{New, 3}}, {Kind: ended, Worker: Worker{New, 3}}, {Kind: ended, Worker: Worker{Old, 3}}},
			"start new 3|commit|drain old 3|finish, committed",
		},
		{
			"taken back", true, true,
			[]Event{{Kind: OnAbort, Why: "memory ran short"}, {Kind: ready, Worker: Worker{New, 3}}, {Kind: ended, Worker: Worker{New, 3}, Why: "exit status 0"}},
			"start new 3|remove new 3|finish, rolled back: memory ran short",
		},
		{
			"taken back twice", true, true,
			[]Event{{Kind: OnAbort, Why: "memory ran short"}, {Kind: OnAbort, Why: "again"}, {Kind: ended, Worker: Worker{New, 3}}},
			"start new 3|remove new 3|finish, rolled back: memory ran short",
		},
		{
			"too late to be taken back", true, true,
			[]Event{{Kind: ready, Worker: Worker{New, 3}}, {Kind: OnAbort, Why: "memory ran short"}, {Kind: ended, Worker: Worker{Old, 3}}},
			"start new 3|commit|drain old 3|finish, committed",
		},
		{"taken back, and stopped", true, true, []Event{{Kind: OnAbort, Why: "x"}, {Kind: OnStop}}, "start new 3|remove new 3|finish, rolled back: x"},
		{"others' events", true, true, []Event{{Kind: ready, Worker: Worker{New, 2}}, {Kind: ended, Worker: Worker{Old, 4}}}, "start new 3"},
		{"stop before", true, true, []Event{{Kind: OnStop}}, "start new 3|finish, stopped"},
		{"stop after", true, true, []Event{{Kind: ready, Worker: Worker{New, 3}}, {Kind: OnStop}}, "start new 3|commit|drain old 3|finish, committed"},
		{"stop in between", true, true, []Event{{Kind: lost, Worker: Worker{New, 3}}, {Kind: OnStop}}, "start new 3|finish, rolled back: its replacement failed"},
	} {
		swap, actions := Replace(3, c.there, c.serves)
		for _, e := range c.events {
			actions = append(actions, swap.Handle(e)...)
		}
		var got []string
		for _, a := range actions {
			got = append(got, a.String())
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, strings.Join(got, "|"), c.want)
		}
	}
}

// TestRandomSwaps: whatever happens, each ends, a worker that serves is told to leave only
// while another serves in its place, and no process is forgotten or told twice.
func TestRandomSwaps(t *testing.T) {
	seen := map[Outcome]int{}
	for seed := range 20000 {
		o, wrong := swapAtRandom(rand.New(rand.NewPCG(uint64(seed), 13)))
		if wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
		seen[o]++
	}
	for _, o := range []Outcome{Committed, RolledBack, Stopped} {
		if seen[o] < 100 {
			t.Errorf("%d of them ended as %s: the histories are too tame", seen[o], o)
		}
	}
}

func swapAtRandom(r *rand.Rand) (Outcome, string) {
	procs := map[Gen]*process{}
	there := r.IntN(4) > 0
	serves := there && r.IntN(3) > 0
	if there {
		procs[Old] = &process{ready: serves}
	}
	swap, actions := Replace(0, there, serves)
	trouble := []float64{0, 0.1, 0.5}[r.IntN(3)]
	stopped, placed := false, false
	for range 200 {
		for _, a := range actions {
			p := procs[a.Worker.Gen]
			switch a.Do {
			case Start:
				if p != nil || a.Worker.Gen != New {
					return 0, a.String()
				}
				procs[New] = &process{}
			case Commit:
				if placed || p == nil || !p.ready {
					return 0, fmt.Sprintf("%s: %+v", a, p)
				}
				placed = true
			case Drain, Remove:
				back := a.Worker.Gen == New && a.Do == Remove && !placed // taken back
				if p == nil || p.told || !back && (!placed || a.Worker.Gen != Old || p.ready != (a.Do == Drain)) {
					return 0, fmt.Sprintf("%s: %+v", a, p)
				}
				p.told = true
			case Finish:
				switch {
				case stopped:
				case a.Outcome == Committed && (!placed || procs[Old] != nil):
					return 0, fmt.Sprintf("%s, and the old one is there", a)
				case a.Outcome == RolledBack && (placed || procs[New] != nil || a.Reason == ""):
					return 0, fmt.Sprintf("%s, and the new one is there", a)
				}
				return a.Outcome, ""
			default:
				return 0, a.String()
			}
		}
		e := swapEvent(r, procs, placed, trouble)
		stopped = e.Kind == OnStop
		actions = swap.Handle(e)
	}
	return 0, "it does not end"
}

// swapEvent draws something that may happen, and makes it true.
func swapEvent(r *rand.Rand, procs map[Gen]*process, placed bool, trouble float64) Event {
	if r.IntN(60) == 0 {
		return Event{Kind: OnStop}
	}
	if r.IntN(60) == 0 {
		return Event{Kind: OnAbort, Why: "memory ran short"}
	}
	g := []Gen{Old, New}[r.IntN(2)]
	e := Event{Kind: OnReady, Worker: Worker{g, 0}}
	p := procs[g]
	switch {
	case p == nil || g == New && placed:
		e.Worker.Slot = 1 // somebody else's
	case p.told || p.lost:
		e.Kind = OnEnded
		delete(procs, g)
	case r.Float64() < trouble && r.IntN(2) == 0:
		e.Kind, e.Why = OnLost, "boot clock"
		p.lost = true
	case r.Float64() < trouble:
		e.Kind, e.Why = OnEnded, "exit status 3"
		delete(procs, g)
	default:
		p.ready = true
	}
	return e
}
