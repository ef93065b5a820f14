package admission

import "time"

// untold is the cost of a permit whose holder has not said it: see Take.
const untold = -1

// Take takes a permit for a request that has yet to be read, if one is free: then nobody waits
// here. The holder says with Charge what it costs, or gives it back with Release; until then it
// does not count as in use, which costs nothing on the way of a request that needs none.
func (p *Permits) Take() (Permit, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return 0, false
	}
	permit := p.free[last]
	p.free = p.free[:last]
	p.costs[permit] = untold
	p.quiet++
	return permit, true
}

// Charge says what the holder of permit costs.
func (p *Permits) Charge(permit Permit, cost time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(permit)
	p.grant(permit, cost)
}

// Stand takes a permit for whatever comes first in another line, and waits for it here among
// the requests, first come first served. After false there is none: stop has been closed, or
// nobody shall wait any more.
func (p *Permits) Stand(stop <-chan struct{}) (Permit, bool) {
	w, ok := p.stand()
	if !ok {
		return p.Take() // one is free, or nobody waits any more
	}
	select {
	case permit := <-w.granted:
		w.timer.Stop()
		p.recycle(w)
		return permit, permit >= 0
	case <-stop:
		w.timer.Stop()
		permit, err := p.giveUp(w)
		return permit, err == nil
	}
}

// stand joins the line; false: a permit is free, or nobody waits any more.
func (p *Permits) stand() (*waiter, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) > 0 || p.refusing {
		return nil, false
	}
	return p.enqueue(Claim{Wait: never, Cost: p.mean}, true), true
}

// never is how long Stand waits at most: its timer is not looked at.
const never = 365 * 24 * time.Hour
