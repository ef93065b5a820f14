package admission

import (
	"errors"
	"sync"
	"time"
)

// Errors of Acquire.
var (
	ErrTimeout = errors.New("no permit became free in time")
	ErrRefused = errors.New("no permit will become free")
)

// Permit is the right to run one request: a number below Size, held by one caller.
type Permit int

// Permits is a fixed number of permits and the line of those who wait for one.
type Permits struct {
	mu          sync.Mutex // guards everything below
	size        int
	free        []Permit // the last one goes next
	refusing    bool     // nobody waits any more
	first, last *waiter
	waiting     int
	spare       *waiter // waiters for the next who wait, linked by next
}

// waiter is one place in the line.
type waiter struct {
	prev, next *waiter
	granted    chan Permit // holds the permit once it is this waiter's, or refusal
	timer      *time.Timer
}

// New returns n permits, all free. n is at least 1.
func New(n int) *Permits {
	if n < 1 {
		panic("admission: fewer than one permit")
	}
	p := &Permits{size: n, free: make([]Permit, n)}
	for i := range p.free {
		p.free[i] = Permit(n - 1 - i)
	}
	return p
}

// refusal is what a waiter is granted when nobody shall wait any more.
const refusal Permit = -1

// Acquire takes a permit, waiting up to limit for one; with a limit of 0 or less it
// takes one only if that is free. Whoever got one calls Release with it, once.
func (p *Permits) Acquire(limit time.Duration) (Permit, error) {
	p.mu.Lock()
	if last := len(p.free) - 1; last >= 0 { // then nobody waits: Release hands on before it frees
		permit := p.free[last]
		p.free = p.free[:last]
		p.mu.Unlock()
		return permit, nil
	}
	if p.refusing {
		p.mu.Unlock()
		return 0, ErrRefused
	}
	if limit <= 0 {
		p.mu.Unlock()
		return 0, ErrTimeout
	}
	w := p.enqueue(limit)
	p.mu.Unlock()

	select {
	case permit := <-w.granted:
		w.timer.Stop()
		p.recycle(w)
		return permit.granted()
	case <-w.timer.C:
		return p.giveUp(w)
	}
}

// granted is what a waiter's turn is to its caller.
func (p Permit) granted() (Permit, error) {
	if p == refusal {
		return 0, ErrRefused
	}
	return p, nil
}

// Release gives a permit back, to the first in line if anybody waits.
func (p *Permits) Release(permit Permit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.first; w != nil {
		p.remove(w)
		w.granted <- permit // has room: a waiter is granted once
		return
	}
	if len(p.free) == p.size {
		panic("admission: more permits released than acquired")
	}
	p.free = append(p.free, permit) // within its capacity
}

// Refuse ends the waiting: whoever is in line, and from now on whoever finds no permit
// free, gets ErrRefused. It is for a worker that leaves and whose permits nobody will
// give back in time.
func (p *Permits) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = true
	for w := p.first; w != nil; w = p.first {
		p.remove(w)
		w.granted <- refusal // has room
	}
}

// InUse returns how many permits are held.
func (p *Permits) InUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size - len(p.free)
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
		w = &waiter{granted: make(chan Permit, 1), timer: time.NewTimer(limit)}
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
func (p *Permits) giveUp(w *waiter) (Permit, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case permit := <-w.granted:
		p.keep(w)
		return permit.granted()
	default:
	}
	p.remove(w)
	p.keep(w)
	return 0, ErrTimeout
}

func (p *Permits) recycle(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(w)
}

// keep puts w aside for the next who waits; its timer is stopped or has fired, and
// since Go 1.23 neither leaves anything in the channel. The lock is held.
func (p *Permits) keep(w *waiter) { w.next, p.spare = p.spare, w }
