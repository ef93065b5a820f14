package accept

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Clocks bound how long a connection may be in one state; 0: as long as it likes.
type Clocks struct {
	Header    time.Duration // until a request's header has arrived; a new connection's first byte, and a TLS handshake, have as long
	Keepalive time.Duration // between two requests
	Write     time.Duration // until the client has taken an answer
}

// What a connection's clock measures. The number of the turn stands above these bits.
const (
	noClock       uint64 = iota
	firstByte            // of a new connection
	header               // of a request
	deadline             // what the server has set
	keepalive            // the next request
	answering            // it is being written
	handshake            // of TLS
	clockKinds           // number of the above
	clockKindBits = 3
)

// clock is when one connection has to have done what it is waited for. The goroutine that
// serves the connection says what that is, with one atomic store and without asking for
// the time; the pool's Run looks at all connections each tick and sees which have not
// moved on for too long. A timer for each wait, which Go's deadlines are, costs as much as
// the system call that it guards.
type clock struct {
	turn atomic.Uint64 // kind and number of the wait: another number is another wait
	next uint64        // number of the turn; used by the goroutine that serves

	until atomic.Int64 // of the kind deadline, in time since epoch

	seen  uint64        // the turn at the last look; used by Run
	since time.Duration // since epoch: the look that saw it first; used by Run
}

// turns begins a wait of the given kind.
func (k *clock) turns(kind uint64) {
	k.next += 1 << clockKindBits
	k.turn.Store(k.next | kind)
}

// opened starts the clock of a connection that has not had a request here.
func (c *conn) opened() {
	switch {
	case c.adopted: // to its client it has had some
		c.clock.turns(keepalive)
	case c.stays:
		c.clock.turns(handshake)
	default:
		c.clock.turns(firstByte)
	}
}

// kind returns what the clock measures in turn.
func kind(turn uint64) uint64 { return turn & (1<<clockKindBits - 1) }

// over tells whether the wait has lasted too long at now, and which it is. A wait that
// began since the last look is measured from this one.
func (k *clock) over(now time.Duration, limits *[clockKinds]time.Duration) (turn uint64, over bool) {
	turn = k.turn.Load()
	if turn != k.seen {
		k.seen, k.since = turn, now
	}
	if kind(turn) == deadline {
		return turn, now >= time.Duration(k.until.Load())
	}
	limit := limits[kind(turn)]
	return turn, limit > 0 && now-k.since >= limit
}

// How often Run looks: often enough that no wait lasts much longer than it may, seldom
// enough to be free.
const (
	minTick = 5 * time.Millisecond
	maxTick = 250 * time.Millisecond
	perWait = 16 // ticks in the shortest wait
)

// Run keeps the clocks of all connections until ctx ends. A connection is interrupted at
// most two ticks after its time, never before: a tick is a sixteenth of the shortest
// clock, between 5 and 250 ms.
func (p *Pool) Run(ctx context.Context) {
	limits := [clockKinds]time.Duration{
		firstByte: p.options.Clocks.Header, header: p.options.Clocks.Header,
		keepalive: p.options.Clocks.Keepalive, answering: p.options.Clocks.Write,
		handshake: p.options.Clocks.Header,
	}
	tick := maxTick
	for _, d := range limits {
		if d > 0 {
			tick = min(tick, max(d/perWait, minTick))
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if !p.look(&limits) {
			ticker.Stop()
			select {
			case <-p.some:
				ticker.Reset(tick)
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look interrupts the connections whose clocks have run out. False: there are none at all.
func (p *Pool) look(limits *[clockKinds]time.Duration) bool {
	now := time.Since(epoch)
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if turn, over := c.clock.over(now, limits); over {
			c.interrupt(turn)
		}
	}
	return len(p.conns) > 0
}

// interrupts are the deadlines of the connection below, which only end calls under way.
type interrupts struct {
	mu      sync.Mutex // guards the fields, together with the deadlines that they speak of
	reading bool       // the read deadline is past
	writing bool       // the write deadline is past
	ended   uint64     // the turn whose time is over; 0: none
}

// interrupt ends the wait of turn, unless the connection has moved on.
func (c *conn) interrupt(turn uint64) {
	c.broken.mu.Lock()
	defer c.broken.mu.Unlock()
	if c.clock.turn.Load() != turn || c.broken.ended == turn {
		return
	}
	c.broken.ended = turn
	if k := kind(turn); k == answering || k == handshake { // and what is read after "100 Continue"
		c.broken.writing = true
		_ = c.Conn.SetWriteDeadline(past)
	}
	c.broken.reading = true
	_ = c.Conn.SetReadDeadline(past)
}

// wake interrupts a Read, for it to look at the offer.
func (c *conn) wake() {
	c.broken.mu.Lock()
	defer c.broken.mu.Unlock()
	c.broken.reading = true
	_ = c.Conn.SetReadDeadline(past)
}

// resume makes the connection usable again after an interrupted Read. False: its time is
// over, or it was interrupted by somebody else.
func (c *conn) resume() bool {
	c.broken.mu.Lock()
	defer c.broken.mu.Unlock()
	if !c.broken.reading || c.broken.ended == c.clock.turn.Load() {
		return false
	}
	c.broken.reading = false
	return c.Conn.SetReadDeadline(time.Time{}) == nil
}

// resumeWrite is resume for Write.
func (c *conn) resumeWrite() bool {
	c.broken.mu.Lock()
	defer c.broken.mu.Unlock()
	if !c.broken.writing || c.broken.ended == c.clock.turn.Load() {
		return false
	}
	c.broken.writing = false
	return c.Conn.SetWriteDeadline(time.Time{}) == nil
}

// SetReadDeadline sets the time until which the server wants to have read what it reads
// next. The pool's Run keeps it: Read may return a tick later. Another state of the
// connection replaces it.
func (c *conn) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		c.clock.turns(noClock)
		return nil
	}
	c.clock.until.Store(int64(t.Sub(epoch)))
	c.clock.turns(deadline)
	return nil
}

// SetWriteDeadline does nothing: Clocks.Write bounds every answer.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// NetConn returns the connection below, whose deadlines are exact. After
// SetReadDeadline(time.Time{}) nothing here sets them.
func (c *conn) NetConn() net.Conn { return c.Conn }
