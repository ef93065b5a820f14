package rollout

import "fmt"

// Resize is one change of the size of a pool whose generation stays: new slots get their
// first workers, or the last slots lose theirs. It belongs to one goroutine.
//
// It is as much a transaction as a reload: a new worker that does not become ready takes
// the others with it, and the pool is as it was. Its workers are New where it adds them
// and Old where it takes them away; their slots are those of the pool.
type Resize struct {
	gen    Gen
	first  int     // the slot of seats[0]
	seats  []state // of the workers that come or go
	undone bool    // the workers that were added leave again
	over   bool
	reason string
	out    []Action
}

// Grow begins to add workers in the slots from, from+1, … below to.
func Grow(from, to int) (*Resize, []Action) {
	r := &Resize{gen: New, first: from, seats: make([]state, max(to-from, 0))}
	for i := range r.seats {
		r.seats[i] = coming
		r.do(Action{Do: Start, Worker: r.worker(i)})
	}
	r.settle()
	return r, r.take()
}

// Shrink begins to take the workers in the slots from to on away; ready tells which of
// them serve. One that is not there is reported as OnEnded like any other.
func Shrink(to int, ready []bool) (*Resize, []Action) {
	r := &Resize{gen: Old, first: to, seats: make([]state, len(ready))}
	for i, serves := range ready {
		r.seats[i] = coming
		if serves {
			r.seats[i] = serving
		}
	}
	r.empty()
	r.settle()
	return r, r.take()
}

// Has tells whether the change is about the worker in slot.
func (r *Resize) Has(slot int) bool { return slot >= r.first && slot < r.first+len(r.seats) }

// Handle returns what follows from e. Its kinds are OnReady, OnLost, OnEnded, OnAbort and OnStop;
// one that means nothing now, as OnAbort where workers leave, or is of a worker that Has is false
// of, changes nothing.
func (r *Resize) Handle(e Event) []Action {
	if r.over {
		return nil
	}
	switch e.Kind {
	case OnStop:
		r.finish(r.outcome(Stopped))
		return r.take()
	case OnAbort:
		r.takeBack(e.Why)
		r.settle()
		return r.take()
	}
	if !r.Has(e.Worker.Slot) {
		return nil
	}
	s := &r.seats[e.Worker.Slot-r.first]
	switch {
	case e.Kind == OnReady && *s == coming:
		*s = serving
	case e.Kind == OnLost && (*s == coming || *s == serving):
		*s = lost
		r.undo(e)
	case e.Kind == OnEnded && *s != absent:
		told := *s == leaving
		*s = absent
		if !told {
			r.undo(e)
		}
	}
	r.settle()
	return r.take()
}

// undo takes away what was added, because of e.
func (r *Resize) undo(e Event) {
	r.takeBack(fmt.Sprintf("worker %d failed%s", e.Worker.Slot, because(e.Why)))
}

// takeBack does so, for a reason.
func (r *Resize) takeBack(why string) {
	if r.undone || r.gen == Old {
		return
	}
	r.undone, r.reason = true, why
	r.empty()
}

// empty makes all workers leave that have not been told to.
func (r *Resize) empty() {
	for i, s := range r.seats {
		a := Action{Do: Remove, Worker: r.worker(i)}
		switch s {
		case serving:
			a.Do = Drain
		case coming:
		default:
			continue
		}
		r.seats[i] = leaving
		r.do(a)
	}
}

// settle ends the change when every worker is where it shall be.
func (r *Resize) settle() {
	want := absent
	if r.gen == New && !r.undone {
		want = serving
	}
	for _, s := range r.seats {
		if s != want {
			return
		}
	}
	r.finish(r.outcome(Committed))
}

// outcome is o, unless it is certain already that the change failed.
func (r *Resize) outcome(o Outcome) Outcome {
	if r.undone {
		return RolledBack
	}
	return o
}

func (r *Resize) finish(o Outcome) {
	r.over = true
	r.do(Action{Do: Finish, Outcome: o, Reason: r.reason})
}

func (r *Resize) worker(i int) Worker { return Worker{r.gen, r.first + i} }

func (r *Resize) do(a Action) { r.out = append(r.out, a) }

func (r *Resize) take() []Action {
	out := r.out
	r.out = nil
	return out
}
