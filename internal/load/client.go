package load

import (
	"bytes"
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// client sends requests one after the other over one connection at a time. Everything
// but mu and what it guards belongs to the goroutine of run; the report is made when
// that has ended.
type client struct {
	g    *Generator
	id   int
	dial net.Dialer
	nap  *time.Timer

	mu   sync.Mutex // guards conn against cut, which closes it from another goroutine
	conn net.Conn

	raw     syscall.RawConn
	look    func(fd uintptr) bool // peeks at the connection; fills seen
	seen    glance
	in      reader
	out     []byte       // the request, where Options.Each makes it
	sent    uint64       // requests begun
	worker  *workerRow   // that answered last on the connection
	unknown *workerRow   // where nobody has answered
	workers []*workerRow // known to this client, so that the shared table is not asked
	history struct {     // of the connection
		serial    uint64 // which of the client's it is, from 1
		answers   uint64 // whole answers, of any status
		announced bool   // its last answer said that it ends
	}
	rec record
}

// record is what a client has counted; see Report for the meanings.
type record struct {
	conn     ConnReport
	warm     Warmup
	failures Counts
	statuses map[int]uint64
	latency  Histogram
	others   map[int]*Histogram // of whole answers of other statuses
	closes   Closes
	trace    []Point
	last     time.Duration // when its last measured request ended
}

func newClient(g *Generator, id int) *client {
	c := &client{g: g, id: id, nap: time.NewTimer(time.Hour), unknown: g.live.worker(nil)}
	c.worker = c.unknown
	c.nap.Stop()
	c.dial.KeepAlive = -1 // requests are bounded by deadlines: no probes
	c.rec.conn.ID = id
	c.rec.statuses = map[int]uint64{}
	c.look = func(fd uintptr) bool {
		c.seen = peek(int(fd))
		return true
	}
	return c
}

// run sends requests until the run ends.
func (c *client) run(ctx context.Context) {
	defer c.leave()
	for {
		at, measured, ok := c.next()
		if !ok {
			return
		}
		noConn := c.request(ctx, at, measured)
		if noConn && c.g.o.Pause > 0 && !c.g.nap(c.g.o.Pause, c.nap) {
			return
		}
	}
}

// next waits for the moment of the next request, from which its latency counts, and
// tells whether it is measured; ok is false when no more is to be sent.
func (c *client) next() (at time.Duration, measured, ok bool) {
	if c.g.arrivals != nil {
		return c.g.arrivals.take(c.g, c.nap)
	}
	if c.g.o.Think > 0 && c.sent > 0 && !c.g.nap(c.g.o.Think, c.nap) {
		return 0, false, false
	}
	at = c.g.now()
	measured, ok = c.g.admit(at)
	return at, measured, ok
}

// request sends one request and counts how it ended. It returns whether no connection
// could be made.
func (c *client) request(ctx context.Context, at time.Duration, measured bool) (noConn bool) {
	g := c.g
	g.live.inFlight.Add(1)
	defer g.live.inFlight.Add(-1)
	n := c.sent
	c.sent++
	begun := at
	if g.arrivals != nil {
		begun = g.now() // the time in the queue is not the service's to bound
	}
	deadline := g.start.Add(begun + g.o.Timeout)
	replaced, err := c.ready(ctx, deadline)
	if err != nil {
		c.fail(outcome{class: dialClass(err), err: err, measured: measured, replaced: replaced})
		return true
	}
	var a answer
	if o, ok := c.exchange(n, &a); !ok {
		o.measured, o.replaced = measured, replaced
		c.fail(o)
		c.hangUp()
		return false
	}
	c.answered(&a, at, measured, replaced)
	if a.close || !g.o.Keepalive {
		c.hangUp()
	}
	return false
}

// exchange writes the n-th request and reads its answer; ok is false when that did not
// come whole.
func (c *client) exchange(n uint64, a *answer) (o outcome, ok bool) {
	request := c.g.o.Request
	if c.g.o.Each != nil {
		c.out = c.g.o.Each(c.out[:0], c.id, n)
		request = c.out
		if !c.g.o.Keepalive {
			request = sayClose(nil, request)
		}
	}
	_, writeErr := c.conn.Write(request)
	// A service may answer and close before it has read all of a request: what can be
	// read then counts more than that the rest could not be written.
	err := c.in.read(a, bytes.HasPrefix(request, []byte("HEAD ")))
	if err == nil {
		c.history.answers++
		c.history.announced = a.close
		return outcome{}, true
	}
	if writeErr != nil && !c.in.started() {
		err = writeErr
	}
	return outcome{class: exchangeClass(err, writeErr == nil, c.in.started()), err: err}, false
}

// ready makes sure that there is a connection on which a request may be sent until
// deadline. replaced tells that the last one had been closed while idle.
func (c *client) ready(ctx context.Context, deadline time.Time) (replaced bool, err error) {
	if c.conn != nil {
		if err := c.conn.SetDeadline(deadline); err == nil && c.glance() == alive {
			return false, nil
		}
		replaced = c.settleIdle()
		c.hangUp()
	}
	c.dial.Deadline = deadline
	network, address := c.g.o.target()
	conn, err := c.dial.DialContext(ctx, network, address)
	if err != nil {
		return replaced, err
	}
	c.g.live.dials.Add(1)
	c.rec.conn.Dials++
	c.history.serial++
	c.history.answers, c.history.announced = 0, false
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	c.g.live.event()
	if c.g.killed.Load() { // cut may have come before the line above
		c.cut()
	}
	c.in.reset(conn)
	if c.raw, err = conn.(syscall.Conn).SyscallConn(); err != nil {
		return replaced, err
	}
	return replaced, conn.SetDeadline(deadline)
}

// glance looks whether the idle connection is still good.
func (c *client) glance() glance {
	if c.in.started() {
		return spoken
	}
	c.seen = closed
	if err := c.raw.Read(c.look); err != nil {
		return closed
	}
	return c.seen
}

// settleIdle counts what a glance found on a connection that is not alive; true if
// the service closed it.
func (c *client) settleIdle() bool {
	if c.g.killed.Load() { // it was us
		return false
	}
	if c.seen == spoken || c.in.started() {
		c.rec.closes.Unasked++
		return false
	}
	c.rec.closes.Idle++
	c.rec.conn.IdleCloses++
	c.worker.idleCloses.Add(1)
	l := &c.g.live
	l.idleCloses.Add(1)
	l.mu.Lock()
	if len(l.closed) < c.g.o.KeepFailures {
		l.closed = append(l.closed, IdleClose{c.g.now(), c.id, c.history.serial, c.worker.name, c.conn.LocalAddr().String()})
	}
	l.mu.Unlock()
	l.event()
	return true
}

// leave ends the client: it counts a close that came after its last answer.
func (c *client) leave() {
	c.nap.Stop()
	if c.conn == nil {
		return
	}
	if err := c.conn.SetDeadline(time.Time{}); err == nil && c.glance() != alive {
		c.settleIdle()
	}
	c.hangUp()
}

// hangUp closes the connection.
func (c *client) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close() // nothing is buffered in it
		c.conn = nil
		c.worker = c.unknown
	}
}

// cut closes the connection under a request in flight. Any goroutine may call it.
func (c *client) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
}
