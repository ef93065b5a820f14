package admission

import (
	"errors"
	"sync"
	"time"
)

// ErrTimeout is Acquire's error when no permit became free in time.
var ErrTimeout = errors.New("no permit became free in time")

// Permits is a fixed number of permits and the line of those who wait for one.
type Permits struct {
	mu          sync.Mutex // guards everything below
	size, free  int
	first, last *waiter
	waiting     int
	spare       *waiter // waiters for the next who wait, linked by next
}

// waiter is one place in the line.
type waiter struct {
	prev, next *waiter
	granted    chan struct{} // holds one element once the permit is this waiter's
	timer      *time.Timer
}

// New returns n permits, all free. n is at least 1.
func New(n int) *Permits {
	if n < 1 {
		panic("admission: fewer than one permit")
	}
	return &Permits{size: n, free: n}
}

// Acquire takes a permit, waiting up to limit for one; with a limit of 0 or less it
// takes one only if that is free. Whoever got nil calls Release once.
func (p *Permits) Acquire(limit time.Duration) error {
	p.mu.Lock()
	if p.free > 0 { // then nobody waits: Release hands on before it frees
		p.free--
		p.mu.Unlock()
		return nil
	}
	if limit <= 0 {
		p.mu.Unlock()
		return ErrTimeout
	}
	w := p.enqueue(limit)
	p.mu.Unlock()

	select {
	case <-w.granted:
		w.timer.Stop()
		p.recycle(w)
		return nil
	case <-w.timer.C:
		return p.giveUp(w)
	}
}

// Release gives a permit back, to the first in line if anybody waits.
func (p *Permits) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.first; w != nil {
		p.remove(w)
		w.granted <- struct{}{} // has room: a waiter is granted once
		return
	}
	if p.free == p.size {
		panic("admission: more permits released than acquired")
	}
	p.free++
}

// InUse returns how many permits are held.
func (p *Permits) InUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size - p.free
}

// Waiting returns how many wait for a permit.
func (p *Permits) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

// Size returns how many permits there are.
func (p *Permits) Size() int { return p.size }

// enqueue puts a waiter at the end of the line. The lock is held.
func (p *Permits) enqueue(limit time.Duration) *waiter {
	w := p.spare
	if w != nil {
		p.spare, w.next = w.next, nil
		w.timer.Reset(limit)
	} else {
		w = &waiter{granted: make(chan struct{}, 1), timer: time.NewTimer(limit)}
	}
	if w.prev = p.last; p.last != nil {
		p.last.next = w
	} else {
		p.first = w
	}
	p.last = w
	p.waiting++
	return w
}

// remove takes w out of the line. The lock is held.
func (p *Permits) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		p.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		p.last = w.prev
	}
	w.prev, w.next = nil, nil
	p.waiting--
}

// giveUp leaves the line, unless the permit was granted at the same moment.
func (p *Permits) giveUp(w *waiter) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.granted:
		p.keep(w)
		return nil
	default:
	}
	p.remove(w)
	p.keep(w)
	return ErrTimeout
}

func (p *Permits) recycle(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(w)
}

// keep puts w aside for the next who waits; its timer is stopped or has fired, and
// since Go 1.23 neither leaves anything in the channel. The lock is held.
func (p *Permits) keep(w *waiter) { w.next, p.spare = p.spare, w }
