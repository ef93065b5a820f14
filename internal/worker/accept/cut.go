package accept

import (
	"net"
	"time"
)

// cutTime is how long writing the answer of Cut may take. A client's socket has room for
// it: nothing was sent since the client asked.
const cutTime = 100 * time.Millisecond

// Cut takes a connection from the goroutine that serves it, which is inside a call that it
// cannot leave: what that writes later goes nowhere, and its Close closes the descriptor.
// The caller calls end once, with all of a response that says "Connection: close"; it is
// sent, and the connection is no longer the pool's.
//
// Not ok changes nothing: answers to earlier requests, which the client has pipelined,
// are still in the server's buffer, and this one must not overtake them; or c is not a
// connection of this package in the middle of a request.
//
// The caller makes sure that the goroutine is inside its call and stays there until end
// has returned.
func Cut(c net.Conn) (end func(answer []byte), ok bool) {
	switch c := c.(type) {
	case *conn:
		if c.flushed && c.state.CompareAndSwap(busy, cut) {
			return c.end, true
		}
	case *secure: // the answer has yet to be encrypted, and to be written as any
		if c.below.flushed && c.below.state.CompareAndSwap(busy, ending) {
			return c.end, true
		}
	}
	return nil, false
}

func (c *conn) end(answer []byte) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(cutTime))
	_, _ = c.Conn.Write(answer) // the client has gone: so much the better
	c.finish()
}

// finish ends what is written to the client.
func (c *conn) finish() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	c.closed.Do(func() { c.pool.forget(c) })
}
