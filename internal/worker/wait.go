package worker

import (
	"time"

	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
)

// A request is worth moving to another worker, which costs both some 50 µs of CPU, when it would wait here for
// longer than this: shorter where another is free, and where none is.
const (
	worthIdle = time.Millisecond
	worthBusy = 5 * time.Millisecond
)

// share makes this worker's requests wait in the queue that all workers of the pool have in common, and has
// it take from there.
func (w *worker) share() {
	if w.waiting == nil { // of a supervisor that has none
		return
	}
	taker, sweeper := w.conns.Share(accept.Wait{
		Queue: w.waiting, Permits: permits{w.permits}, Puts: w.board.Puts(),
		Computes: w.api.Computes, Look: w.api.Look, Admits: w.api.Admits, Stays: w.soon,
		Takes: !w.cfg.Queue.Shared, BodyTime: w.cfg.Timeouts.Request,
	})
	w.taker, w.sweeper = taker, sweeper
}

// permits are the worker's, as accept knows them.
type permits struct{ of *admission.Permits }

func (p permits) Take() (int, bool) {
	permit, ok := p.of.Take()
	return int(permit), ok
}

func (p permits) Stand(stop <-chan struct{}) (int, bool) {
	permit, ok := p.of.Stand(stop)
	return int(permit), ok
}

func (p permits) Release(permit int) { p.of.Release(admission.Permit(permit)) }

// soon tells whether the next who waits here gets a permit so soon that moving its request costs more
// than it saves.
func (w *worker) soon() bool {
	wait, known := w.permits.Soon()
	return known && wait <= worthBusy && (wait <= worthIdle || !w.freeElsewhere())
}

// freeElsewhere tells whether another worker of the pool seems to have a permit free.
func (w *worker) freeElsewhere() bool {
	for _, r := range w.board.Rows() {
		if r != w.row && r.Limit.Load() > r.InUse.Load() && r.Pool() == w.row.Pool() {
			return true
		}
	}
	return false
}

// elsewhere returns how many requests wait in the pool beside those of this worker's own line, and how many
// workers it has.
func (w *worker) elsewhere() (waiting, workers int) {
	if w.waiting == nil {
		return 0, 1
	}
	waiting = w.waiting.Depth()
	for _, r := range w.board.Rows() {
		if r.Limit.Load() == 0 || r.Pool() != w.row.Pool() {
			continue
		}
		if workers++; r != w.row {
			waiting += int(r.Waiting.Load())
		}
	}
	return waiting, workers
}
