package admission

import "time"

// overdueSlack is how much longer than expected something may run before nobody knows when it ends.
const overdueSlack = time.Millisecond

// expected returns how long the next in line would wait. What runs is believed to have run
// since the latest permit was granted. The lock is held.
func (p *Permits) expected() time.Duration {
	return (p.queued + p.residual()) / time.Duration(p.options.Runners)
}

// residual is how long all that runs still takes. Of who has a permit and has not said what it costs
// nobody knows since when; but that is short. The lock is held.
func (p *Permits) residual() time.Duration {
	return max(p.held-time.Duration(p.options.Runners)*time.Since(p.granted), 0) + time.Duration(p.quiet)*p.mean
}

// shared returns how long the next in the queue that all workers have in common would wait: what
// it costs them all is what it costs here, on average. The lock is held.
func (p *Permits) shared(others, workers int) time.Duration {
	ahead := p.queued + time.Duration(others)*p.mean
	return (ahead/time.Duration(workers) + p.residual()) / time.Duration(p.options.Runners)
}

func (p *Permits) elsewhere() (waiting, workers int) {
	if p.options.Elsewhere == nil {
		return 0, 1
	}
	waiting, workers = p.options.Elsewhere()
	return waiting, max(workers, 1)
}

// Expected returns how long the next who waits in the service would wait for a permit, as far
// as the costs tell; 0 if it would not.
func (p *Permits) Expected() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) > 0 {
		return 0
	}
	return max(p.shared(p.elsewhere()), p.expected())
}

// Soon returns how long the next who waits here would wait, and whether that can be told: not
// while something runs that nobody knows the cost of, or that should have ended.
func (p *Permits) Soon() (wait time.Duration, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) > 0 {
		return 0, true
	}
	late := time.Duration(p.options.Runners)*time.Since(p.granted) - p.held
	switch {
	case p.held > 0:
		known = late < overdueSlack
	case p.inUse() == 0:
		known = p.mean > 0
	}
	return p.expected(), known
}

// Admits returns why a request may not wait in the queue that all workers have in common; nil: it
// may. Its bytes wait in the kernel.
func (p *Permits) Admits(c Claim) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	others, workers := p.elsewhere()
	c.Bytes = 0
	return p.admits(&c, p.shared(others, workers), others)
}

// learn has the mean follow the cost of one more request. The lock is held.
func (p *Permits) learn(cost time.Duration) {
	switch {
	case cost <= 0:
	case p.mean == 0:
		p.mean = cost
	default:
		p.mean += (cost - p.mean) / 8
	}
}

// Stayed notes that somebody has waited in the common queue until its turn, Left that it has gone
// after so long.
func (p *Permits) Stayed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.patience.stayed()
}

// Left is explained at Stayed.
func (p *Permits) Left(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.patience.left(after)
}
