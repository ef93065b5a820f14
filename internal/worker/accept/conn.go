package accept

import (
	"errors"
	"io"
	"net"
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
	pinned                // ends where it is: TLS, or upgraded to another protocol
	given                 // belongs to another worker
	cut                   // has been answered by Cut, and only ends
)

// conn is a connection that can be given away between two requests.
type conn struct {
	net.Conn
	pool     *Pool
	listener int
	since    time.Time
	place    bool // holds one of the pool's places

	state    atomic.Uint32
	counted  atomic.Bool  // in pool.movable
	deadline atomic.Int64 // for reading, as the server set it: since epoch; 0: none
	closed   sync.Once

	mu    sync.Mutex // guards woken, together with the deadline that it speaks of
	woken bool       // the read deadline may be wake's, not the server's

	// The server's buffer has no answer: it reads from here between two requests only
	// when it has sent what it had. Used by the serving goroutine, and by Cut while that
	// is inside a call.
	flushed bool

	// Until its first request here an adopted connection is an old one to its client
	// and a new one to the server, which would grant it the time of a first header
	// only, and answer its end with 408. Used by the serving goroutine.
	adopted bool
	header  time.Duration // what the server granted for the header
}

// epoch makes an instant on the monotonic clock fit into an atomic.
var epoch = time.Now()

// past is a deadline that wakes whoever reads.
var past = time.Unix(1, 0)

// Read reads from the client. Between two requests it may find that the connection is
// wanted elsewhere; it then sends the descriptor and returns net.ErrClosed, on which
// fasthttp closes without another word (serveConn in its server.go).
func (c *conn) Read(p []byte) (int, error) {
	switch c.state.Load() {
	case between:
		if o := c.pool.offer.Load(); o != nil && o.give(c) {
			return 0, net.ErrClosed
		}
		c.flushed = true
	case unseen:
		c.pin()
	case given, cut:
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		return c.interrupted(p, n, err)
	}
	return n, nil
}

// interrupted is Read after an error. A deadline that wake set is no end: it makes the
// connection look at the offer, and where that has gone, wait on under the deadline of
// the server. A request that began at the same moment is read on with.
func (c *conn) interrupted(p []byte, n int, err error) (int, error) {
	for errors.Is(err, os.ErrDeadlineExceeded) {
		if !c.restore() {
			if c.adopted {
				err = io.EOF // fasthttp closes silently, as after any keep-alive timeout
			}
			return n, err
		}
		if c.state.Load() == between {
			if o := c.pool.offer.Load(); o != nil && o.give(c) {
				return 0, net.ErrClosed
			}
		}
		n, err = c.Conn.Read(p)
	}
	return n, err
}

// Write writes to the client, unless the connection has been given away or cut.
func (c *conn) Write(p []byte) (int, error) {
	if s := c.state.Load(); s == given || s == cut {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// SetReadDeadline sets the deadline and remembers it, for when wake has replaced it. An
// offer that was made meanwhile is not missed: Read looks at it first.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.adopted && !t.IsZero() && c.pool.options.Keepalive > 0 {
		c.header = time.Until(t)
		t = time.Now().Add(c.pool.options.Keepalive)
	}
	since := int64(0)
	if !t.IsZero() {
		since = max(int64(t.Sub(epoch)), 1)
	}
	c.deadline.Store(since)
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// wake interrupts a Read.
func (c *conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken = true
	_ = c.Conn.SetReadDeadline(past)
}

// restore undoes wake. False: it was not wake that let the deadline pass.
func (c *conn) restore() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.woken {
		return false
	}
	c.woken = false
	t := time.Time{}
	if since := c.deadline.Load(); since != 0 {
		t = epoch.Add(time.Duration(since))
	}
	return c.Conn.SetReadDeadline(t) == nil
}

// active notes the first byte of a request.
func (c *conn) active() {
	c.state.CompareAndSwap(between, busy)
	if !c.adopted {
		return
	}
	c.adopted = false
	if c.header > 0 { // fasthttp sets no deadline on what it takes for a first request
		_ = c.SetReadDeadline(time.Now().Add(c.header))
	}
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
	m := handoff.Message{Kind: handoff.Idle, Generation: c.pool.options.Generation, Listener: c.listener, Since: c.since}
	var put error
	if err := raw.Control(func(fd uintptr) { put = q.Put(int(fd), m) }); err != nil {
		return err
	}
	return put
}

// Close closes this process's descriptor, without a shutdown(2): if the connection was
// given away, it lives on. It may be called more than once.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() { c.pool.forget(c) })
	return err
}
