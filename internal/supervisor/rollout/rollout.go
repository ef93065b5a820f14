package rollout

import (
	"fmt"
	"time"
)

// Plan is what a reload shall do.
type Plan struct {
	// Old tells, by slot, whether the worker of the old generation is ready. One that is
	// not is being started, or waits to be.
	Old []bool
	// New is how many workers the new generation has, at least 1; with Joint also 0, for a
	// pool that it does not have.
	New int
	// Surge is how many processes may run beyond the larger of the two generations, at
	// least 1: the canary. With New or more, all new workers are ready before the first
	// old one leaves.
	Surge int
	// Floor is how many workers shall accept at any time. The reload never goes below it
	// by its own actions; it is lowered to what is ready at the start, and to New.
	Floor int
	Bake  time.Duration // with 0 the canary passes one more self-test
	Trial time.Duration // with 0 it gets no connections before it is counted on
	// DryRun ends the reload after the first self-test.
	DryRun bool
	// Joint has the reload begin when it is told that it is its turn, and commit when it is
	// told that all others are as far.
	Joint bool
}

// state is that of one worker, as far as a reload cares.
type state uint8

const (
	absent  state = iota // none, and none shall start now
	down                 // ended untold; it shall start again
	coming               // to be started, or started and not ready
	waiting              // ready, and not allowed to accept
	serving              // ready and accepting
	lost                 // failed, and not yet ended
	leaving              // told to leave, and not yet ended
)

// seat is a slot's place in one generation.
type seat struct {
	state     state
	held      bool // it may not accept yet
	ours      bool // the reload took its worker away: a rollback is not over without it
	condemned bool // it serves, but badly: it does not count, and may always be taken away
	ends      int  // during the rollback, untold
}

// process tells whether the seat takes room.
func (s *seat) process() bool { return s.state >= coming }

// Rollout is one reload. It belongs to one goroutine.
type Rollout struct {
	plan    Plan
	phase   Phase
	seats   [2][]seat // by generation and slot
	limit   int       // of processes
	testing bool      // a self-test is not answered
	winding bool      // the clock is wound
	counts  bool      // Count is not answered
	outcome Outcome
	reason  string
	told    Action   // the last report
	out     []Action // of the event being handled
}

// Begin starts a reload and returns the first actions.
func Begin(p Plan) (*Rollout, []Action) {
	p.Surge = max(p.Surge, 1)
	if !p.Joint {
		p.New = max(p.New, 1)
	}
	r := &Rollout{plan: p, limit: max(len(p.Old), p.New) + p.Surge, outcome: Stopped}
	r.seats = [2][]seat{Old: make([]seat, len(p.Old)), New: make([]seat, p.New)}
	for slot, ready := range p.Old {
		r.seats[Old][slot].state = coming
		if ready {
			r.seats[Old][slot].state = serving
		}
	}
	r.phase = Waiting
	if !p.Joint {
		r.feed(turn, Worker{}, "")
	}
	return r, r.take()
}

// Handle returns what follows from e. An event that means nothing now, as a second
// OnReady or one of a worker that is not there, changes nothing.
func (r *Rollout) Handle(e Event) []Action {
	if in, why, ok := r.classify(e); ok {
		r.feed(in, e.Worker, why)
	}
	return r.take()
}

// Phase returns how far the reload has come.
func (r *Rollout) Phase() Phase { return r.phase }

// Committed tells whether there is no way back: from Draining on the new generation is
// the one that serves.
func (r *Rollout) Committed() bool { return r.outcome == Committed }

func (r *Rollout) take() []Action {
	out := r.out
	r.out = nil
	return out
}

func (r *Rollout) do(a Action) { r.out = append(r.out, a) }

// classify notes what e says of a worker, a question or the clock, and returns it as the
// table knows it.
func (r *Rollout) classify(e Event) (in input, why string, ok bool) {
	switch e.Kind {
	case OnReady, OnLost, OnEnded:
		in, ok = r.note(e)
		return in, e.Why, ok
	case OnPassed, OnFailed:
		ok, r.testing = r.testing, false
		switch {
		case e.Kind == OnFailed:
			return failed, e.Why, ok
		case r.phase == Testing && r.plan.DryRun:
			return rehearsed, "", ok
		}
		return passed, "", ok
	case OnClock:
		ok, r.winding = r.winding, false
		return clock, "", ok
	case OnCounted:
		ok, r.counts = r.counts, false
		in, why = judge(e.Canary, e.Others)
		return in, why, ok
	case OnTurn:
		if r.plan.New == 0 {
			return filled, "", true
		}
		return turn, "", true
	case OnAgreed:
		return agreed, "", true
	case OnAbort:
		return abort, e.Why, true
	case OnStop:
		return stop, "", true
	}
	return 0, "", false
}

// note keeps what has happened to a worker.
func (r *Rollout) note(e Event) (input, bool) {
	s := r.seat(e.Worker)
	if s == nil || !s.process() {
		return 0, false
	}
	ready, gone := newReady, newLost
	if e.Worker.Gen == Old {
		ready, gone = oldReady, oldLost
	}
	switch {
	case e.Kind == OnReady && s.state == coming && s.held:
		s.state = waiting
		return ready, true
	case e.Kind == OnReady && s.state == coming:
		s.state = serving
		return ready, true
	case e.Kind == OnLost && s.state != leaving && s.state != lost:
		s.state = lost
		return gone, true
	case e.Kind == OnEnded && s.state == leaving:
		s.state = absent
		return left, true
	case e.Kind == OnEnded:
		s.state = down
		if r.phase == Undoing {
			s.ends++
		}
		return gone, true
	}
	return 0, false
}

// seat returns the place of w, nil if there is none.
func (r *Rollout) seat(w Worker) *seat {
	if w.Gen > New || w.Slot < 0 || w.Slot >= len(r.seats[w.Gen]) {
		return nil
	}
	return &r.seats[w.Gen][w.Slot]
}

// feed looks up what in means now, and does it. why and w are those of its event.
func (r *Rollout) feed(in input, w Worker, why string) {
	c := table[r.phase][in]
	if c.phase == None {
		return
	}
	if c.phase == Undoing && r.phase != Undoing {
		r.decide(in, w, why)
	}
	r.enter(c.phase)
	r.carryOut(c.step)
}

// decide keeps why the reload is taken back.
func (r *Rollout) decide(in input, w Worker, why string) {
	if in == rehearsed {
		r.outcome = Rehearsed
		return
	}
	r.outcome, r.reason = RolledBack, blame(r.phase, in, w)
	if why != "" {
		r.reason += ": " + why
	}
	if in == bad || in == failed {
		r.seats[New][canary.Slot].condemned = true
	}
}

// blame says what failed, as operators read it.
func blame(p Phase, in input, w Worker) string {
	if in == abort {
		return "aborted"
	}
	switch p {
	case Booting:
		return "the canary did not become ready"
	case Testing:
		return "the canary failed its self-test"
	case Baking, Proving:
		return "the canary failed during the bake"
	case Trying, Judging:
		return "the canary failed its trial"
	}
	return fmt.Sprintf("worker %d of the new generation failed", w.Slot)
}

// enter makes p the phase.
func (r *Rollout) enter(p Phase) {
	if p == r.phase {
		return
	}
	if r.winding {
		r.winding = false
		r.do(Action{Do: SetClock})
	}
	r.phase = p
	if p != Done && p != Draining { // promote reports after the commit, not before
		r.report()
	}
}

// report tells the phase and how many are ready, where that is news.
func (r *Rollout) report() {
	ready := 0
	for _, s := range r.seats[New] {
		if s.state == waiting || s.state == serving {
			ready++
		}
	}
	a := Action{Do: Report, Phase: r.phase, Ready: ready, Of: r.plan.New, Reason: r.reason}
	if a != r.told {
		r.told = a
		r.do(a)
	}
}

// wind sets the clock of the phase. One of no length has run out at once.
func (r *Rollout) wind(d time.Duration) {
	if d <= 0 {
		r.feed(clock, Worker{}, "")
		return
	}
	r.winding = true
	r.do(Action{Do: SetClock, Clock: d})
}

// test asks the canary for a self-test.
func (r *Rollout) test() {
	r.testing = true
	r.do(Action{Do: SelfTest, Worker: canary})
}
