package admission

import (
	"sync"
	"time"

	"preforkd/internal/worker/fifo"
)

// Permit is the right to read and run one request: a number below Size, held by one caller.
type Permit int

// Permits is a fixed number of permits and the line of those who wait for one.
type Permits struct {
	options Options

	mu       sync.Mutex // guards everything below
	free     []Permit   // the last one goes next
	costs    []time.Duration
	held     time.Duration // costs of all who hold a permit
	quiet    int           // permits that are held for what has yet to say what it costs
	mean     time.Duration // cost of one request, smoothed
	standing int           // of those in the line, how many are no requests: see Stand
	queued   time.Duration // costs of all who wait
	granted  time.Time     // the latest one
	refusing bool          // nobody waits any more
	line     fifo.Line[*waiter]
	bytes    int64   // of those who wait
	spare    *waiter // waiters for the next who wait, linked by spare
	patience patience
}

// waiter is one place in the line.
type waiter struct {
	claim   Claim
	place   fifo.Place[*waiter]
	spare   *waiter
	since   time.Time
	stands  bool        // it is Stand's
	turn    uint64      // how often it was used
	granted chan Permit // holds the permit once it is this waiter's, or refusal or gone
	timer   *time.Timer
}

// New returns permits, all free. o.Limit is at least 1.
func New(o Options) *Permits {
	if o.Limit < 1 {
		panic("admission: fewer than one permit")
	}
	if o.Runners < 1 {
		o.Runners = o.Limit
	}
	if o.Observe == nil {
		o.Observe = func(int, int) {}
	}
	p := &Permits{options: o, free: make([]Permit, o.Limit), costs: make([]time.Duration, o.Limit)}
	for i := range p.free {
		p.free[i] = Permit(o.Limit - 1 - i)
	}
	return p
}

// What a waiter is granted when there is no permit for it.
const (
	refusal Permit = -1 // nobody shall wait any more
	gone    Permit = -2
)

// Acquire takes a permit, waiting for one as c says. Whoever got one calls Release with
// it, once. With a permit free it is given, whatever c says.
func (p *Permits) Acquire(c Claim) (Permit, error) {
	p.mu.Lock()
	if last := len(p.free) - 1; last >= 0 { // then nobody waits: Release hands on before it frees
		permit := p.free[last]
		p.free = p.free[:last]
		p.grant(permit, c.Cost)
		p.mu.Unlock()
		return permit, nil
	}
	if err := p.admitsHere(&c); err != nil {
		p.mu.Unlock()
		return 0, err
	}
	w := p.enqueue(c, false)
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
	switch p {
	case refusal:
		return 0, ErrRefused
	case gone:
		return 0, ErrGone
	}
	return p, nil
}

// Release gives a permit back, to the first in line if anybody waits.
func (p *Permits) Release(permit Permit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	quiet := p.settle(permit)
	if first := p.line.First(); first != nil {
		w := first.Of
		p.remove(w)
		if !w.stands {
			p.patience.stayed()
		}
		p.grant(permit, w.claim.Cost)
		w.granted <- permit // has room: a waiter is granted once
		return
	}
	if len(p.free) == p.options.Limit {
		panic("admission: more permits released than acquired")
	}
	p.free = append(p.free, permit) // within its capacity
	if !quiet {
		p.observe()
	}
}

// grant notes that permit is held by somebody who needs so much. The lock is held.
func (p *Permits) grant(permit Permit, cost time.Duration) {
	p.costs[permit] = cost
	p.held += cost
	p.granted = time.Now()
	p.learn(cost)
	p.observe()
}

// settle takes away what permit's holder costs, and tells whether it had not said that. The
// lock is held.
func (p *Permits) settle(permit Permit) (quiet bool) {
	if quiet = p.costs[permit] == untold; quiet {
		p.quiet--
	} else {
		p.held -= p.costs[permit]
	}
	p.costs[permit] = 0
	return quiet
}

// Refuse ends the waiting: whoever is in line, and from now on whoever finds no permit
// free, gets ErrRefused. It is for a worker that leaves and whose permits nobody will
// give back in time.
func (p *Permits) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = true
	for first := p.line.First(); first != nil; first = p.line.First() {
		p.remove(first.Of)
		first.Of.granted <- refusal // has room
	}
}

// InUse returns how many permits are held.
func (p *Permits) InUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inUse()
}

// inUse leaves out what is quiet: most of that is no request of a model.
func (p *Permits) inUse() int { return p.options.Limit - len(p.free) - p.quiet }

// Waiting returns how many requests wait for a permit.
func (p *Permits) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting()
}

func (p *Permits) waiting() int { return p.line.Len() - p.standing }

// Size returns how many permits there are.
func (p *Permits) Size() int { return p.options.Limit }

// observe tells how many are in use and how many wait. The lock is held.
func (p *Permits) observe() { p.options.Observe(p.inUse(), p.waiting()) }

// enqueue puts a waiter at the end of the line. The lock is held.
func (p *Permits) enqueue(c Claim, stands bool) *waiter {
	w := p.spare
	if w != nil {
		p.spare, w.spare = w.spare, nil
		w.timer.Reset(c.Wait)
	} else {
		w = &waiter{granted: make(chan Permit, 1), timer: time.NewTimer(c.Wait)}
		w.place.Of = w
	}
	w.claim, w.since, w.stands = c, time.Now(), stands
	if stands {
		p.standing++
	}
	w.turn++
	p.line.Push(&w.place)
	p.bytes += c.Bytes
	p.queued += c.Cost
	p.observe()
	return w
}

// remove takes w out of the line. The lock is held.
func (p *Permits) remove(w *waiter) {
	p.line.Remove(&w.place)
	p.bytes -= w.claim.Bytes
	p.queued -= w.claim.Cost
	w.claim.Who = nil
	if w.stands {
		p.standing--
	}
	p.observe()
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
func (p *Permits) keep(w *waiter) { w.spare, p.spare = p.spare, w }
