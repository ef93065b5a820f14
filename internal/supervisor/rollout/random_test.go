package rollout

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// process is one process of the simulated service.
type process struct {
	ready, accepts, held, lost, told bool
}

// world is a service that carries out a reload's actions, and complains.
type world struct {
	plan      Plan
	procs     map[Worker]*process
	floor     int
	testing   bool // a self-test is not answered
	clock     bool
	counting  bool
	judged    bool        // the canary was found bad while it accepted
	undoing   bool        // the reload has failed, and was not committed
	ends      map[int]int // of old workers that were not told to, since then
	starts    map[Worker]int
	taken     map[int]bool // old slots whose workers the reload made leave
	commits   int
	finished  *Action
	stopped   bool
	wrong     []string
	narrative []string
}

func newWorld(p Plan) *world {
	w := &world{plan: p, procs: map[Worker]*process{}, ends: map[int]int{}, starts: map[Worker]int{}, taken: map[int]bool{}}
	for slot, ready := range p.Old {
		w.procs[Worker{Old, slot}] = &process{ready: ready, accepts: ready}
	}
	w.floor = min(p.Floor, w.serving(), p.New)
	return w
}

func (w *world) complain(format string, args ...any) {
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

func (w *world) serving() int {
	n := 0
	for who, p := range w.procs {
		if p.accepts && !p.told && !p.lost && (who != canary || !w.judged) {
			n++
		}
	}
	return n
}

// allowed is the floor, less what cannot be brought back.
func (w *world) allowed() int {
	able := len(w.plan.Old)
	if w.undoing {
		for slot, n := range w.ends {
			if p := w.procs[Worker{Old, slot}]; n >= maxEnds && (p == nil || !p.accepts || p.told || p.lost) {
				able--
			}
		}
	}
	return min(w.floor, able)
}

func (w *world) carryOut(actions []Action) {
	for _, a := range actions {
		w.narrative = append(w.narrative, "  "+a.String())
		if w.finished != nil {
			w.complain("%s after the end", a)
		}
		p := w.procs[a.Worker]
		switch a.Do {
		case Start:
			w.start(a, p)
		case SelfTest:
			if w.testing || p == nil || !p.ready || p.told {
				w.complain("%s: %+v", a, p)
			}
			w.testing = true
		case Accept:
			if p == nil || !p.ready || !p.held || p.told {
				w.complain("%s: %+v", a, p)
			}
			p.held, p.accepts = false, true
		case Drain, Remove:
			w.leave(a, p)
		case Commit:
			w.commit()
		case SetClock:
			w.clock = a.Clock > 0
		case Count:
			w.counting = true
		case Report:
			w.undoing = w.undoing || a.Phase == Undoing
		case Finish:
			w.finished = &a
			w.checkEnd(a)
		}
	}
}

func (w *world) start(a Action, p *process) {
	if p != nil {
		w.complain("%s: there is one", a)
	}
	if a.Worker.Gen == Old && w.commits > 0 {
		w.complain("%s after the commit", a)
	}
	if a.Held != (a.Worker == canary && w.commits == 0 && w.starts[canary] == 0) {
		w.complain("%s: held is %v", a, a.Held)
	}
	w.starts[a.Worker]++
	w.procs[a.Worker] = &process{held: a.Held}
	if limit := max(len(w.plan.Old), w.plan.New) + w.plan.Surge; len(w.procs) > limit {
		w.complain("%s: %d processes, %d are allowed", a, len(w.procs), limit)
	}
}

func (w *world) leave(a Action, p *process) {
	if p == nil || p.told || p.accepts != (a.Do == Drain) {
		w.complain("%s: %+v", a, p)
		return
	}
	if a.Worker.Gen == New && w.commits > 0 {
		w.complain("%s after the commit", a)
	}
	before := w.serving()
	p.told = true
	if a.Worker.Gen == Old {
		w.taken[a.Worker.Slot] = true
	}
	if after := w.serving(); after < before && after < w.allowed() {
		w.complain("%s: %d serve, %d must", a, after, w.allowed())
	}
}

func (w *world) commit() {
	w.commits++
	for slot := range w.plan.New {
		if p := w.procs[Worker{New, slot}]; p == nil || !p.accepts || p.lost {
			w.complain("commit, and new %d: %+v", slot, p)
		}
	}
	if w.commits > 1 || w.plan.DryRun {
		w.complain("commit %d, dry run %v", w.commits, w.plan.DryRun)
	}
}

// checkEnd makes sure that one generation is left, whole.
func (w *world) checkEnd(a Action) {
	if (a.Outcome == Committed) != (w.commits == 1) {
		w.complain("%s after %d commits", a, w.commits)
	}
	if (a.Reason != "") != (a.Outcome == RolledBack) || (a.Outcome == Stopped && !w.stopped) {
		w.complain("%s", a)
	}
	if w.stopped { // whatever runs is the supervisor's
		return
	}
	stays, slots := Old, len(w.plan.Old)
	if a.Outcome == Committed {
		stays, slots = New, w.plan.New
	}
	for slot := range slots {
		p := w.procs[Worker{stays, slot}]
		if p == nil || p.told {
			w.complain("%s, and %s %d: %+v", a, stays, slot, p)
			continue
		}
		if stays == Old && w.taken[slot] && !p.accepts && w.ends[slot] < maxEnds {
			w.complain("%s, and old %d is not back", a, slot)
		}
	}
	if len(w.procs) != slots {
		w.complain("%s, and %d processes are left of %d slots", a, len(w.procs), slots)
	}
}

// next draws something that may happen now: with probability trouble something bad.
func (w *world) next(r *rand.Rand, trouble float64) (Event, bool) {
	var may []Event
	bad := r.Float64() < trouble
	for _, g := range []Gen{Old, New} {
		for slot := range max(len(w.plan.Old), w.plan.New) {
			who := Worker{g, slot}
			switch p := w.procs[who]; {
			case p == nil:
			case p.told || p.lost:
				may = append(may, Event{Kind: OnEnded, Worker: who, Why: "it was ended"})
			case bad:
				may = append(may, Event{Kind: OnEnded, Worker: who, Why: "signal 11"}, Event{Kind: OnLost, Worker: who, Why: "clock"})
			case !p.ready:
				may = append(may, Event{Kind: OnReady, Worker: who})
			}
		}
	}
	if w.testing {
		e := Event{Kind: OnPassed}
		if bad {
			e = Event{Kind: OnFailed, Why: "NaN"}
		}
		may = append(may, e)
	}
	if w.clock {
		may = append(may, Event{Kind: OnClock})
	}
	if w.counting {
		c := Tally{Answers: r.Uint64N(300)}
		if bad {
			c.Errors = r.Uint64N(c.Answers + 1)
		}
		may = append(may, Event{Kind: OnCounted, Canary: c, Others: Tally{Answers: r.Uint64N(1000)}})
	}
	if len(may) == 0 {
		return Event{}, bad
	}
	return may[r.IntN(len(may))], true
}

// happen makes e true in the world. A stray event is of nobody.
func (w *world) happen(e Event, phase Phase) {
	w.narrative = append(w.narrative, fmt.Sprintf("%s %s (%s)", e.Worker, e.Kind, phase))
	p := w.procs[e.Worker]
	switch e.Kind {
	case OnReady:
		if p != nil && !p.told && !p.lost {
			p.ready, p.accepts = true, !p.held
		}
	case OnLost:
		if p != nil {
			p.lost, p.accepts = true, p.accepts && p.told
		}
	case OnEnded:
		if p != nil && !p.told && e.Worker.Gen == Old && w.undoing {
			w.ends[e.Worker.Slot]++
		}
		delete(w.procs, e.Worker)
	case OnPassed, OnFailed:
		w.judged = w.judged || w.testing && e.Kind == OnFailed && phase == Judging
		w.testing = false
	case OnClock:
		w.clock = false
	case OnCounted:
		in, _ := judge(e.Canary, e.Others)
		w.judged = w.judged || w.counting && in == bad && phase == Judging
		w.counting = false
	case OnStop:
		w.stopped = true
	}
}

// TestRandomReloads runs random reloads of services of random size in which random
// things go wrong, and checks all that a reload promises.
func TestRandomReloads(t *testing.T) {
	n := 60000
	if testing.Short() {
		n = 5000
	}
	outcomesSeen := [outcomes]int{}
	for seed := range n {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		p := Plan{
			New: 1 + r.IntN(5), Surge: 1 + r.IntN(5), Floor: r.IntN(6),
			Bake: time.Duration(r.IntN(2)), Trial: time.Duration(r.IntN(2)), DryRun: r.IntN(10) == 0,
		}
		for range r.IntN(6) {
			p.Old = append(p.Old, r.IntN(5) > 0)
		}
		w := run(r, p)
		if len(w.wrong) > 0 {
			t.Fatalf("seed %d, %+v:\n%s\n%s", seed, p, strings.Join(w.narrative, "\n"), strings.Join(w.wrong, "\n"))
		}
		outcomesSeen[w.finished.Outcome]++
	}
	for o, count := range outcomesSeen {
		if count < n/200 {
			t.Errorf("%d of %d reloads ended as %s: the histories are too tame", count, n, Outcome(o))
		}
	}
}

// run lets one reload happen.
func run(r *rand.Rand, p Plan) *world {
	w := newWorld(p)
	trouble := []float64{0, 0.02, 0.1, 0.5, 0.9}[r.IntN(5)]
	reload, actions := Begin(p)
	w.carryOut(actions)
	for i := 0; w.finished == nil && len(w.wrong) == 0; i++ {
		if i > 3000 {
			w.complain("it does not end")
			break
		}
		e, ok := w.next(r, trouble)
		if !ok {
			w.complain("nothing is under way, and it has not ended")
			break
		}
		switch r.IntN(300) {
		case 0:
			e = Event{Kind: OnAbort}
		case 1:
			e = Event{Kind: OnStop}
		case 2, 3, 4: // late, twice, or of nobody
			e = Event{Kind: []Kind{OnReady, OnPassed, OnClock, OnCounted}[r.IntN(4)], Worker: Worker{Gen(r.IntN(2)), 9}}
		}
		phase := reload.Phase()
		w.happen(e, phase)
		w.carryOut(reload.Handle(e))
		if reload.Committed() != (w.commits == 1) {
			w.complain("Committed() is %v after %d commits", reload.Committed(), w.commits)
		}
		if e.Kind == OnReady {
			if again := reload.Handle(e); len(again) > 0 {
				w.complain("a second OnReady does something: %v", again)
			}
		}
	}
	return w
}
