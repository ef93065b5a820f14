package accept

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"preforkd/internal/ipc/handoff"
)

// Options say what a Pool holds.
type Options struct {
	Connections int           // the most that it accepts
	Generation  uint64        // of this worker, sent along with what it gives away
	Clocks      Clocks        // kept by Run
	Patience    time.Duration // how long one that was given away may wait for a taker; 0: a second
	// Refused is told of connections that are closed because of what their peer is, or sends
	// before everything else; it must not block. Nil: nobody is.
	Refused func(peer net.Addr, why string)
}

// defaultPatience is what a request may be late when no worker takes its connection: no
// more than a client waits for TCP's first retransmission (RFC 6298, section 2.1).
const defaultPatience = time.Second

// Pool is the connections of a worker, whichever listener they came from.
type Pool struct {
	options Options
	places  chan struct{} // one for each connection, and for each listener that waits for one

	offer   atomic.Pointer[offer] // what may be given away now; nil: nothing
	giver   sync.Mutex            // held by Leave or Give
	leaving chan struct{}         // closed when Leave begins
	some    chan struct{}         // one token: there are connections again

	mu        sync.Mutex // guards the fields below
	conns     map[*conn]struct{}
	listeners []*Listener
	adopters  []*Adopter
	takers    []*Taker
	left      bool

	// movable counts connections that are, or will be, between requests, and those on
	// their way here; without the ones that have to end where they are.
	movable atomic.Int64

	waits *waiting // the queue that all workers have in common; nil: there is none. See Share

	moved, adopted, reclaimed atomic.Uint64
}

// NewPool returns an empty pool.
func NewPool(o Options) *Pool {
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	return &Pool{
		options: o,
		places:  make(chan struct{}, o.Connections),
		leaving: make(chan struct{}),
		some:    make(chan struct{}, 1),
		conns:   map[*conn]struct{}{},
	}
}

// Counts are a pool's gauges and counters.
type Counts struct {
	Open, Idle int    // connections held now; those of them between requests
	Busy       int    // those of them in a request
	Moved      uint64 // given away
	Adopted    uint64 // taken from other workers
	Reclaimed  uint64 // taken back because no worker took them
	Queued     uint64 // put, with a request, into the queue that all workers have in common
	Taken      uint64 // taken from there
	Unqueued   uint64 // for which it had no room
}

// Counts returns how things stand. It looks at every connection.
func (p *Pool) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := Counts{Open: len(p.conns), Moved: p.moved.Load(), Adopted: p.adopted.Load(), Reclaimed: p.reclaimed.Load()}
	if w := p.waits; w != nil {
		c.Queued, c.Taken, c.Unqueued = w.put.Load(), w.taken.Load(), w.full.Load()
	}
	for conn := range p.conns {
		switch conn.state.Load() {
		case between:
			c.Idle++
		case busy:
			c.Busy++
		}
	}
	return c
}

// Open returns how many connections are held.
func (p *Pool) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// State is what a server reports of a connection: fasthttp's ConnState, in its order.
type State int

// States, as fasthttp's ConnState explains them.
const (
	StateNew State = iota
	StateActive
	StateIdle
	StateHijacked
	StateClosed
)

// State notes that the server sees c in s, and starts the clock of that. A connection of
// which StateNew was not reported, or which was wrapped on its way to the server, is never
// given away, and neither is one with TLS.
func (p *Pool) State(c net.Conn, s State) {
	conn, bare := c.(*conn)
	if own, ok := c.(*secure); ok {
		conn, bare = own.below, true
	}
	if !bare {
		if conn = unwrap(c); conn == nil {
			return
		}
	}
	switch s {
	case StateNew:
		conn.opened()
		if bare {
			conn.state.CompareAndSwap(unseen, between)
		}
	case StateActive:
		conn.clock.turns(header)
		conn.active()
	case StateIdle:
		conn.clock.turns(keepalive)
		conn.idle()
		conn.flushed = false // until Read is called: the next request may be in the buffer
		conn.state.CompareAndSwap(busy, between)
	case StateHijacked:
		conn.clock.turns(noClock)
		conn.release()
		conn.pin()
	}
}

// unwrap returns the connection of a pool below c, or nil.
func unwrap(c net.Conn) *conn {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = w.NetConn()
		if conn, ok := c.(*conn); ok {
			return conn
		}
	}
}

// add takes c into the pool. One that can go was counted in movable before it left the
// kernel, so that Leave never looks while it is nowhere.
func (p *Pool) add(c *conn) {
	c.pool, c.waits = p, p.waits
	_, c.local = c.Conn.(*net.UnixConn)
	c.counted.Store(!c.stays && !c.awaits)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	if len(p.conns) == 1 {
		select {
		case p.some <- struct{}{}:
		default:
		}
	}
}

// forget takes c out of the pool: it has been closed, or sent and closed.
func (p *Pool) forget(c *conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	if c.place {
		<-p.places
	}
	c.unmovable()
}

// unmovable notes one connection less to wait for.
func (p *Pool) unmovable() {
	if p.movable.Add(-1) == 0 {
		if o := p.offer.Load(); o != nil {
			o.signal()
		}
	}
}

// wake makes up to n connections that wait for a request look at the offer.
func (p *Pool) wake(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if n <= 0 {
			return
		}
		if c.state.Load() == between && c.counted.Load() {
			c.wake()
			n--
		}
	}
}

// reclaim lets this worker take back what waits in q, though it leaves.
func (p *Pool) reclaim(q *handoff.Queue) {
	p.mu.Lock()
	adopters := p.adopters
	p.mu.Unlock()
	for _, a := range adopters {
		if a.queue == q {
			a.reclaim()
		}
	}
}
