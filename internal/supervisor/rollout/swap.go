package rollout

import "fmt"

// Swap replaces one worker of a pool by another of the same generation, which serves
// before the first one leaves. It belongs to one goroutine.
//
// Until the new worker is ready everything can be taken back, and a failure costs
// nothing: the old one goes on. Both have the same slot; Old is the one that shall leave.
type Swap struct {
	slot     int
	old, new state
	reason   string // why it failed; empty: it has not
	placed   bool   // the new worker has the slot
	over     bool
	out      []Action
}

// Replace begins to replace the worker in slot. There is tells whether it has one, serves
// whether that is ready.
func Replace(slot int, there, serves bool) (*Swap, []Action) {
	w := &Swap{slot: slot, old: absent, new: coming}
	switch {
	case serves:
		w.old = serving
	case there:
		w.old = coming
	}
	w.do(Action{Do: Start, Worker: w.worker(New)})
	return w, w.take()
}

// Handle returns what follows from e. Its kinds are OnReady, OnLost, OnEnded, OnAbort and OnStop;
// one that means nothing now changes nothing. After the Commit the new worker is the
// supervisor's own: what happens to it is no longer told.
func (w *Swap) Handle(e Event) []Action {
	if w.over {
		return nil
	}
	switch {
	case e.Kind == OnStop:
		w.stop()
	case e.Kind == OnAbort:
		w.abort(e.Why)
	case e.Worker.Slot != w.slot:
	case e.Worker.Gen == Old:
		w.handleOld(e)
	default:
		w.handleNew(e)
	}
	return w.take()
}

func (w *Swap) handleOld(e Event) {
	switch {
	case e.Kind == OnReady && w.old == coming:
		w.old = serving
	case e.Kind == OnLost && (w.old == coming || w.old == serving):
		w.old = lost
	case e.Kind == OnEnded && w.old != absent:
		w.old = absent
		if w.placed {
			w.finish(Committed)
		}
	}
}

func (w *Swap) handleNew(e Event) {
	switch {
	case w.placed:
	case e.Kind == OnReady && w.new == coming:
		w.place()
	case e.Kind == OnLost && w.new == coming:
		w.new = lost
		w.failed(e)
	case e.Kind == OnEnded && w.new != absent:
		w.new = absent
		w.failed(e)
		w.finish(RolledBack)
	}
}

// place gives the slot to the new worker, which serves, and lets the old one go.
func (w *Swap) place() {
	w.new, w.placed = serving, true
	w.do(Action{Do: Commit, Worker: w.worker(New)})
	switch w.old {
	case absent:
		w.finish(Committed)
	case serving:
		w.do(Action{Do: Drain, Worker: w.worker(Old)})
		w.old = leaving
	case coming:
		w.do(Action{Do: Remove, Worker: w.worker(Old)})
		w.old = leaving
	}
}

// failed keeps why the new worker cannot take the place; the first reason counts.
func (w *Swap) failed(e Event) {
	if w.reason == "" {
		w.reason = fmt.Sprintf("its replacement failed%s", because(e.Why))
	}
}

// abort takes the new worker away, unless it has the place already.
func (w *Swap) abort(why string) {
	if w.placed || w.new != coming {
		return
	}
	if w.new = leaving; w.reason == "" {
		w.reason = why
	}
	w.do(Action{Do: Remove, Worker: w.worker(New)})
}

// stop ends the swap where it is: all processes are the supervisor's.
func (w *Swap) stop() {
	switch {
	case w.placed:
		w.finish(Committed)
	case w.reason != "":
		w.finish(RolledBack)
	default:
		w.finish(Stopped)
	}
}

func (w *Swap) finish(o Outcome) {
	w.over = true
	w.do(Action{Do: Finish, Outcome: o, Reason: w.reason})
}

func (w *Swap) worker(g Gen) Worker { return Worker{g, w.slot} }

func (w *Swap) do(a Action) { w.out = append(w.out, a) }

func (w *Swap) take() []Action {
	out := w.out
	w.out = nil
	return out
}
