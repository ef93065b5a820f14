package accept

import (
	"context"
	"time"

	"preforkd/internal/ipc/handoff"
)

// lookEvery is how often a giver looks at the queue. The kernel tells a sender that
// there is room, but not that something has been received.
const lookEvery = 2 * time.Millisecond

// Leave stops accepting and gives every connection away, each as soon as it is between
// two requests. It returns when none is left that can go and those that went have been
// taken, or when ctx ends; moved connections are gone, kept ones are still served here
// and the caller's to drain. (Where several workers leave and nobody takes, one may take
// back what another gave; moved is then off by that.)
//
// Kept are connections with TLS or an upgraded protocol; when ctx ends also those in a
// request, and all for which no taker was found. Until then these are served as before.
// Afterwards every Listener and Adopter has ended.
func (p *Pool) Leave(ctx context.Context, q *handoff.Queue) (moved, kept int) {
	listeners, adopters, takers := p.stopAccepting()
	for _, t := range takers { // those that stay take
		t.End()
	}
	p.giver.Lock()
	defer p.giver.Unlock()
	before, back := p.moved.Load(), p.reclaimed.Load()
	for _, l := range listeners { // what they have returned has been reported as StateNew
		l.await(ctx)
	}
	g := giving{pool: p, offer: newOffer(q), want: everything}
	g.run(ctx, nil)
	for _, a := range adopters {
		a.Stop()
	}
	return max(0, int(p.moved.Load()-before)-int(p.reclaimed.Load()-back)), p.Open()
}

// Give gives at most n connections away, each as soon as it is between two requests,
// while the worker goes on accepting. It returns how many have gone, when these have
// been taken, no more can go, or ctx has ended.
func (p *Pool) Give(ctx context.Context, q *handoff.Queue, n int) (moved int) {
	p.giver.Lock()
	defer p.giver.Unlock()
	before, back := p.moved.Load(), p.reclaimed.Load()
	g := giving{pool: p, offer: newOffer(q), want: n}
	g.run(ctx, p.leaving)
	return max(0, int(p.moved.Load()-before)-int(p.reclaimed.Load()-back))
}

// LeaveBehind is Leave for a service that stops, and whose next start takes what is in q: it
// waits for no taker. When it returns none is left that can go, q is full, or ctx has ended;
// kept ones are the caller's to drain.
func (p *Pool) LeaveBehind(ctx context.Context, q *handoff.Queue) (left, kept int) {
	listeners, adopters, takers := p.stopAccepting()
	for _, t := range takers {
		t.Stop()
	}
	p.giver.Lock()
	defer p.giver.Unlock()
	before := p.moved.Load()
	o := newOffer(q)
	o.allow(everything)
	p.offer.Store(o)
	defer func() {
		o.allow(0)
		p.offer.Store(nil)
	}()
	p.wake(everything) // before all else: when the main process has died, systemd kills what is left
	for _, l := range listeners {
		l.await(ctx)
	}
	for _, a := range adopters {
		a.Stop()
	}
	p.wake(everything)                // those that were on their way here
	tick := time.NewTicker(lookEvery) // nobody tells when another worker has taken the last who waits
	defer tick.Stop()
	for p.movable.Load() > 0 || p.somebodyWaits() {
		if _, _, full := o.look(); full {
			break
		}
		select {
		case <-ctx.Done():
			return int(p.moved.Load() - before), p.Open()
		case <-o.changed:
		case <-tick.C:
		}
	}
	return int(p.moved.Load() - before), p.Open()
}

// somebodyWaits tells whether a connection is in the queue that all workers have in common: whoever takes it
// first counts it in movable.
func (p *Pool) somebodyWaits() bool { return p.waits != nil && p.waits.Queue.Depth() > 0 }

// CloseAdopted closes the adopted connections that have had no request here, now and
// from now on, for a service that stops. fasthttp's Shutdown closes connections between
// two requests by itself, but takes these for new ones and waits five seconds.
func (p *Pool) CloseAdopted() {
	p.giver.Lock()
	defer p.giver.Unlock()
	o := newOffer(nil)
	o.allow(everything)
	p.offer.Store(o)
	p.wake(everything)
	// What has come in part, and has not been read, is no request to the server yet: it would close
	// the connection. All of it is being read now.
	for range 100 {
		if p.waits == nil || p.waits.half.Load() == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// stopAccepting ends taking connections, of clients and of workers. An Adopter's lock is
// held while it asks whether it may take, and that may ask the pool: so it is not taken
// under the pool's.
func (p *Pool) stopAccepting() ([]*Listener, []*Adopter, []*Taker) {
	p.mu.Lock()
	if !p.left {
		p.left = true
		close(p.leaving)
	}
	listeners, adopters, takers := p.listeners, p.adopters, p.takers
	p.mu.Unlock()
	for _, l := range listeners {
		l.end(false)
	}
	for _, a := range adopters {
		a.leave()
	}
	return listeners, adopters, takers
}

// giving is one run of Leave or Give. It trusts that somebody takes once somebody has
// taken: the first connection goes alone. When what waits in the queue is not taken for
// the pool's patience, the trust is gone, this worker takes it back, and later tries
// again with one.
type giving struct {
	pool  *Pool
	offer *offer
	want  int

	trust    bool
	failed   int       // how many had gone when the trust was last lost
	depth    int       // of the queue, at the last look
	progress time.Time // when it was last empty or shorter than before
	retry    time.Time // not before
	full     int       // the queue's depth when it refused one; 0: it has room
}

func (g *giving) run(ctx context.Context, cut <-chan struct{}) {
	p := g.pool
	p.offer.Store(g.offer)
	defer func() {
		g.offer.allow(0)
		p.offer.Store(nil)
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for g.progress = time.Now(); ; {
		if g.look(time.Now()) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-cut:
			return
		case <-g.offer.changed:
		case <-tick.C:
		}
	}
}

// look sees how things stand and allows what may go. True ends the run.
func (g *giving) look(now time.Time) bool {
	p, q := g.pool, g.offer.queue
	// In this order. A connection that is put raises the depth before it is no longer
	// movable, one that is taken back is movable before the depth falls: it is never
	// overlooked. And whatever had gone by the first line is in the depth, or taken.
	given, left, refused := g.offer.look()
	movable := p.movable.Load()
	depth := q.Depth()
	ended := movable == 0 && p.movable.Load() == 0
	if depth == 0 && (ended || g.want != everything && given-g.failed >= g.want) {
		return true
	}
	if depth == 0 || depth < g.depth {
		g.progress = now
	}
	g.depth = depth
	if refused && g.full == 0 {
		g.full = max(depth, 1)
	}
	switch {
	case depth == 0 && given > g.failed:
		g.trust = true
	case now.Sub(g.progress) > p.options.Patience:
		g.trust, g.failed = false, g.offer.allow(0)
		g.progress, g.retry = now, now.Add(p.options.Patience)
		p.reclaim(q)
		return false
	}
	g.allow(now, given, left)
	return false
}

// allow lets connections go: all, when there is trust and room, else one.
func (g *giving) allow(now time.Time, given, left int) {
	rest := g.want
	if rest != everything {
		rest = max(0, rest-(given-g.failed))
	}
	room := g.full == 0 || g.depth <= g.full/2
	switch {
	case left == everything: // they go by themselves
	case g.trust && room && left < rest:
		g.full = 0
		g.offer.allow(rest)
		g.pool.wake(rest)
	case left > 0: // some were busy when they were woken
		g.pool.wake(left)
	case !g.trust && room && g.depth == 0 && given == g.failed && !now.Before(g.retry):
		g.full = 0
		g.offer.allow(min(rest, 1))
		g.pool.wake(min(rest, 1))
	}
}
