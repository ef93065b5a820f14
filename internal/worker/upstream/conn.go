package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	smallBuffer = 4 << 10  // of a connection that is in use
	largeBuffer = 64 << 10 // above it a buffer is not kept
)

var buffers = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}

// conn is a connection to a service, with what has been read of it and not used.
type conn struct {
	net.Conn
	tcp    *net.TCPConn // below TLS
	buf    *[]byte      // nil while it is idle
	lo, hi int          // what has been read
	got    int          // bytes read since begin
	since  time.Time    // when it became idle
	kept   bool         // it was idle before
	ready  bool         // whoever it is has been told who asks
}

// fill reads more, at least one byte, into a buffer of at most limit bytes.
func (c *conn) fill(limit int) error {
	b := *c.buf
	if c.lo == c.hi {
		c.lo, c.hi = 0, 0
	}
	if c.hi == len(b) {
		switch {
		case c.lo > 0:
			c.hi = copy(b, b[c.lo:c.hi])
			c.lo = 0
		case len(b) >= limit:
			return &Error{Kind: Large, Text: "sent more than is read of it at once"}
		default:
			larger := make([]byte, min(2*len(b), max(limit, len(b))))
			copy(larger, b[:c.hi])
			c.buf = &larger
			b = larger
		}
	}
	n, err := c.Read(b[c.hi:])
	c.hi += n
	c.got += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// rest returns what has been read and not used.
func (c *conn) rest() []byte { return (*c.buf)[c.lo:c.hi] }

// begin takes a buffer for an exchange.
func (c *conn) begin() {
	if c.buf == nil {
		c.buf = buffers.Get().(*[]byte)
	}
	c.lo, c.hi, c.got = 0, 0, 0
}

// end gives the buffer back.
func (c *conn) end() {
	if c.buf != nil && len(*c.buf) == smallBuffer {
		buffers.Put(c.buf)
	}
	c.buf = nil
}

// stale tells whether an idle connection is of no use: the other side has closed it, or has sent
// what nobody asked for.
func (c *conn) stale() bool {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return true
	}
	stale := true
	if err := raw.Control(func(fd uintptr) {
		var b [1]byte
		for {
			_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err == unix.EINTR {
				continue
			}
			stale = err != unix.EAGAIN
			return
		}
	}); err != nil {
		return true
	}
	return stale
}

// pool is the connections to one service.
type pool struct {
	address string
	secure  *tls.Config   // nil: none
	connect time.Duration // for a new connection, TLS included; 0: the call's
	keep    time.Duration // how long one may be idle; 0: none is kept

	mu   sync.Mutex // guards idle
	idle []*conn    // the latest last
}

// get returns an idle connection, or a new one.
func (p *pool) get(call *Call) (*conn, error) {
	for {
		c := p.take()
		if c == nil {
			return p.dial(call)
		}
		if !c.stale() {
			c.kept = true
			c.begin()
			return c, nil
		}
		_ = c.Close()
	}
}

func (p *pool) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return c
}

// put keeps a connection on which nothing is under way, for the next exchange.
func (p *pool) put(c *conn) {
	if p.keep <= 0 || c.lo < c.hi || c.SetDeadline(time.Time{}) != nil {
		p.drop(c)
		return
	}
	c.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	c.since = time.Now()
	p.idle = append(p.idle, c)
}

func (p *pool) drop(c *conn) {
	c.end()
	_ = c.Close()
}

// dial makes a connection.
func (p *pool) dial(call *Call) (*conn, error) {
	end := call.until(p.connect)
	ctx, cancel := context.WithDeadline(context.Background(), end)
	if end.IsZero() {
		ctx, cancel = context.Background(), func() {}
	}
	defer cancel()
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, p.undialled(call, err)
	}
	c := &conn{Conn: nc, tcp: nc.(*net.TCPConn)}
	if p.secure != nil {
		secured := tls.Client(nc, p.secure)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return nil, p.undialled(call, err)
		}
		c.Conn = secured
	}
	c.begin()
	return c, nil
}

func (p *pool) undialled(call *Call, err error) error {
	var network net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout() {
		return call.explain(&Error{Kind: Slow, Text: "could not be connected to"}, p.connect, "connect_timeout")
	}
	return &Error{Kind: Unreachable, Text: "cannot be reached: " + reason(err), again: true}
}

// Sweep closes connections that have been idle for too long at that time.
func (p *pool) Sweep(now time.Time) {
	var old []*conn
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) >= p.keep {
		n++
	}
	if n > 0 {
		old = append(old, p.idle[:n]...)
		p.idle = append(p.idle[:0:0], p.idle[n:]...)
	}
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// Idle returns how many connections are kept.
func (p *pool) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// Close closes the connections that are kept.
func (p *pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}
