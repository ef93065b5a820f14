package accept

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"preforkd/internal/ipc/handoff"
)

// What a connection is doing. Only the goroutine that serves it moves it on, except to cut.
const (
	unseen  uint32 = iota // accepted, not yet reported by the server
	between               // waits for a request, nothing of which has been read
	busy                  // reads, runs or answers one
	pinned                // ends where it is: upgraded to another protocol, or wrapped by somebody else
	given                 // belongs to another worker
	ending                // with TLS: Cut answers it
	cut                   // has been answered by Cut, and only ends
)

// conn is a connection that can be given away between two requests.
type conn struct {
	net.Conn
	pool     *Pool
	listener int
	since    time.Time
	place    bool // holds one of the pool's places
	stays    bool // has TLS, and ends where it is
	local    bool // is of a Unix socket

	state   atomic.Uint32
	counted atomic.Bool // in pool.movable
	closed  sync.Once
	clock   clock
	broken  interrupts

	// The server's buffer has no answer: it reads from here between two requests only
	// when it has sent what it had. Used by the serving goroutine, and by Cut while that
	// is inside a call.
	flushed bool

	// Until its first request here an adopted connection is an old one to its client
	// and a new one to the server, which would answer its end with 408. Used by the
	// serving goroutine.
	adopted bool

	// Of the queue that all workers have in common; nil: there is none. Used by the serving
	// goroutine, but held, which whoever closes takes as well.
	waits   *waiting
	arrival arrival
	held    atomic.Int32  // number of the permit that it holds, and one; 0: none
	seen    time.Duration // when the request that has come through the queue was seen, by handoff.Clock; 0: none has
	refused error         // why the request may not wait in the queue

	// Of the PROXY header, which comes first. Used by the serving goroutine.
	awaits bool
	header []byte         // what there is of it
	client netip.AddrPort // whom it named
}

// epoch makes an instant on the monotonic clock fit into a word.
var epoch = time.Now()

// past is a deadline that wakes whoever reads.
var past = time.Unix(1, 0)

// Read reads from the client. Between two requests it may find that the connection is
// wanted elsewhere; it then sends the descriptor and returns net.ErrClosed, on which
// fasthttp closes without another word (serveConn in its server.go).
func (c *conn) Read(p []byte) (int, error) {
	if c.awaits {
		if n, err := c.readProxy(p); n > 0 || err != nil {
			return n, err
		}
	}
	switch c.state.Load() {
	case between:
		if c.wanted() {
			return 0, net.ErrClosed
		}
		c.flushed = true
	case unseen:
		c.pin()
	case given, cut:
		return 0, net.ErrClosed
	}
	if c.arrival.late {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.read(p)
	if err != nil {
		return c.interrupted(p, n, err)
	}
	return n, nil
}

// interrupted is Read after an error. A deadline that wake set is no end: it makes the
// connection look at the offer, and where that has gone, wait on. A request that began at
// the same moment is read on with. Only a clock that has run out is one.
func (c *conn) interrupted(p []byte, n int, err error) (int, error) {
	for errors.Is(err, os.ErrDeadlineExceeded) {
		if !c.resume() {
			if c.arrival.phase != nothing {
				return c.readLate(p)
			}
			if c.adopted {
				err = io.EOF // fasthttp closes silently, as after any keep-alive timeout
			}
			return n, err
		}
		if c.state.Load() == between && c.wanted() {
			c.forgetHalf()
			return 0, net.ErrClosed
		}
		n, err = c.read(p)
	}
	if err != nil {
		c.forgetHalf()
	}
	return n, err
}

// wanted gives the connection away, if it is wanted elsewhere and can go.
func (c *conn) wanted() bool {
	if c.stays || c.seen > 0 { // the latter: its request is in hand
		return false
	}
	o := c.pool.offer.Load()
	return o != nil && o.give(c)
}

// Write writes to the client, unless the connection has been given away or cut.
func (c *conn) Write(p []byte) (int, error) {
	if s := c.state.Load(); s == given || s == cut {
		return 0, net.ErrClosed
	}
	if k := kind(c.clock.turn.Load()); k != answering && k != handshake {
		c.clock.turns(answering)
	}
	n, err := c.Conn.Write(p)
	for errors.Is(err, os.ErrDeadlineExceeded) && c.resumeWrite() {
		var more int
		more, err = c.Conn.Write(p[n:])
		n += more
	}
	return n, err
}

// active notes the first byte of a request.
func (c *conn) active() {
	c.state.CompareAndSwap(between, busy)
	c.adopted = false
}

// pin notes that the connection will never be given away.
func (c *conn) pin() {
	c.state.Store(pinned)
	c.unmovable()
}

// unmovable takes the connection out of those that Leave waits for. Idempotent.
func (c *conn) unmovable() {
	if c.counted.Swap(false) {
		c.pool.unmovable()
	}
}

// send puts the descriptor into q. Control keeps the descriptor open meanwhile, should
// somebody else close the connection.
func (c *conn) send(q *handoff.Queue) error {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var put error
	if err := raw.Control(func(fd uintptr) {
		c.lower(int(fd), 0)
		put = q.Put(int(fd), c.message(handoff.Idle))
	}); err != nil {
		return err
	}
	return put
}

func (c *conn) message(kind handoff.Kind) handoff.Message {
	return handoff.Message{Kind: kind, Generation: c.pool.options.Generation, Listener: c.listener, Since: c.since, Client: c.client}
}

// idle forgets the request that has been answered.
func (c *conn) idle() {
	if c.waits == nil {
		return
	}
	c.release()
	c.seen, c.refused, c.arrival.late = 0, nil, false
}

// Close closes this process's descriptor, without a shutdown(2): if the connection was
// given away, it lives on. It may be called more than once.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.release()
	c.closed.Do(func() { c.pool.forget(c) })
	return err
}
