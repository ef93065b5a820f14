package scoreboard

import "sync/atomic"

// runningBytes and queueBytes are the sizes of Running and Queue.
const (
	runningBytes = 11 * lineBytes
	queueBytes   = 4 * lineBytes
)

// Running is the background task that a worker runs, as it lies in memory: whoever finds the worker
// dead can have the task returned at once.
type Running struct {
	held atomic.Uint64 // 1: what follows is whole
	id   [32]atomic.Uint64
	ack  [48]atomic.Uint64
	_    [7]uint64
}

// Begin says that the worker runs the task id, whose message is acknowledged at ack. What does not fit
// is not said: the queue finds out by itself, later. End says that it has run.
func (r *Running) Begin(id, ack string) {
	if !fits(id, len(r.id)) || !fits(ack, len(r.ack)) {
		return
	}
	storeText(r.id[:], id)
	storeText(r.ack[:], ack)
	r.held.Store(1)
}

// End takes back what Begin said.
func (r *Running) End() { r.held.Store(0) }

// Task returns what Begin said.
func (r *Running) Task() (id, ack string, ok bool) {
	if r.held.Load() == 0 {
		return "", "", false
	}
	return loadText(r.id[:]), loadText(r.ack[:]), true
}

// Queue is how the queue of background tasks is, as one worker has said last; the counters are of
// all workers together.
type Queue struct {
	Said    Stamp // when
	Depth   Gauge // tasks that wait
	Running Gauge // tasks that run, or wait to be tried again
	Oldest  Gauge // milliseconds since the oldest of both was accepted
	Dead    Gauge // tasks that are parked
	Used    Gauge // bytes stored
	Limit   Gauge // how many those may be; 0: not known
	Full    Gauge // 1: nothing new is taken

	Accepted    Counter
	Refused     Counter
	Finished    Counter // those that have succeeded
	Failed      Counter
	Retried     Counter
	Redelivered Counter // runs that ended without a word
	Crashed     Counter // runs that ended their worker
	_           uint64

	_ [16]uint64
}

// Queue returns the board's, on a board of an earlier version this process's own.
func (b *Board) Queue() *Queue { return b.queue }
