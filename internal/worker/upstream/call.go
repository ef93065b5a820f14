package upstream

import (
	"net"
	"sync"
	"time"
)

// Call is one exchange as its caller sees it. The zero value has no end.
type Call struct {
	// End is when it is over; zero: never.
	End time.Time

	mu      sync.Mutex // guards what follows
	conn    net.Conn   // in use
	aborted bool
}

// past is a deadline that wakes whoever reads or writes.
var past = time.Unix(1, 0)

// Abort ends the exchange: whoever waits in it returns with an Error of the kind Aborted.
func (c *Call) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	if c.conn != nil {
		_ = c.conn.SetDeadline(past)
	}
}

// errAborted is of calls that nobody waits for.
var errAborted = &Error{Kind: Aborted, Text: "was not waited for"}

// limit gives conn the time until within from now is over, or the call is; 0: until the call is.
// Until the next limit or rest it is what Abort ends.
func (c *Call) limit(conn net.Conn, within time.Duration) error {
	end := c.until(within)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return errAborted
	}
	c.conn = conn
	return conn.SetDeadline(end)
}

// until returns the earlier of within from now and the call's end; zero: neither.
func (c *Call) until(within time.Duration) time.Time {
	if within <= 0 {
		return c.End
	}
	end := time.Now().Add(within)
	if !c.End.IsZero() && c.End.Before(end) {
		return c.End
	}
	return end
}

// rest says that no connection is in use any more.
func (c *Call) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
}

// explain completes what failed returned: a deadline may have been Abort's, and has a length.
func (c *Call) explain(err error, within time.Duration, of string) error {
	e, ok := err.(*Error)
	if !ok || e.Kind != Slow {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.aborted:
		return errAborted
	case within > 0 && (c.End.IsZero() || time.Now().Before(c.End)):
		e.Within, e.Of = within, of
	}
	return e
}
