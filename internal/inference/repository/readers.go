package repository

import (
	"sync/atomic"
	"time"
)

// readers counts those who may hold a model that they have found, in two groups: newcomers
// join the one of the turn. Whoever has replaced the set turns, so that all who may have
// seen the former one are in the other group, which nobody joins any more, and waits for its
// end. To come and to go is an atomic addition each.
type readers struct {
	turn atomic.Uint32
	_    [60]byte
	in   [2]group
}

// group has a cache line of its own.
type group struct {
	n atomic.Int64
	_ [56]byte
}

// Reader is the right to run what is found, until Leave.
type Reader uint32

// Enter begins it. Models that are found afterwards are not freed before Leave.
func (r *Repository) Enter() Reader {
	for {
		turn := r.readers.turn.Load()
		r.readers.in[turn&1].n.Add(1)
		if r.readers.turn.Load() == turn { // else the group may have been found empty before
			return Reader(turn & 1)
		}
		r.readers.in[turn&1].n.Add(-1)
	}
}

// Leave ends it.
func (r *Repository) Leave(e Reader) { r.readers.in[e].n.Add(-1) }

// emptyPoll is how often wait looks. Nobody waits for it but memory that could be free.
const emptyPoll = 2 * time.Millisecond

// wait returns when everybody who has entered before has left. One caller at a time.
func (r *readers) wait() {
	left := r.turn.Add(1) - 1
	for r.in[left&1].n.Load() != 0 {
		time.Sleep(emptyPoll)
	}
}
