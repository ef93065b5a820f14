package load

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// glance is what a look at an idle connection found.
type glance uint8

const (
	alive  glance = iota
	closed        // the service closed or reset it
	spoken        // the service sent something that nobody asked for
)

// peek looks at the socket fd without waiting and without taking anything from it.
func peek(fd int) glance {
	var one [1]byte
	for {
		n, _, err := syscall.Recvfrom(fd, one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return alive
		case err != nil || n == 0:
			return closed
		default:
			return spoken
		}
	}
}

// outcome is how a request failed.
type outcome struct {
	class    Class
	err      error
	status   int
	measured bool
	replaced bool // its connection replaced one that was closed while idle
}

// dialClass is the class of a failed dial.
func dialClass(err error) Class {
	switch {
	case timedOut(err):
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return Refused
	}
	return Dial
}

// exchangeClass is the class of a request that did not get a whole answer.
func exchangeClass(err error, written, started bool) Class {
	var p protocolError
	switch {
	case errors.As(err, &p):
		return Protocol
	case timedOut(err):
		return Timeout
	case started:
		return Partial
	case written:
		return Unanswered
	}
	return Unwritten
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// fail counts a request that failed.
func (c *client) fail(o outcome) {
	g := c.g
	now := g.now()
	if g.killed.Load() {
		c.rec.conn.Abandoned++
		return
	}
	reused := c.history.answers > 0 && c.conn != nil
	if o.measured {
		c.worker.failures[o.class].Add(1)
		c.rec.last = now
		c.rec.failures[o.class]++
		c.rec.conn.Failures++
		if o.status != 0 {
			c.rec.statuses[o.status]++
		}
		if o.replaced {
			c.rec.closes.IdleThenFailed++
		}
		if reused && (o.class == Unwritten || o.class == Unanswered) {
			c.rec.closes.Late++
		}
	} else {
		c.rec.warm.Failures[o.class]++
	}
	g.live.failures[o.class].Add(1)
	c.list(o, now)
	g.live.event()
}

// list keeps the failure for the report, if there is room.
func (c *client) list(o outcome, now time.Duration) {
	f := Failure{
		At: now, Conn: c.id, Serial: c.history.serial, Class: o.class, Worker: c.worker.name,
		Status: o.status, Warmup: !o.measured,
		Reset: errors.Is(o.err, syscall.ECONNRESET) || errors.Is(o.err, syscall.EPIPE),
	}
	if c.conn != nil { // else the dial failed: the history is that of the last connection
		f.Answers, f.Announced = c.history.answers, c.history.announced
		f.Local = c.conn.LocalAddr().String()
	}
	if o.err != nil {
		f.Text = strings.ToValidUTF8(o.err.Error(), "\uFFFD")
	}
	l := &c.g.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) < c.g.o.KeepFailures {
		l.first = append(l.first, f)
	}
}

// answered judges and counts a whole answer to the request of the moment at.
func (c *client) answered(a *answer, at time.Duration, measured, replaced bool) {
	g := c.g
	now := g.now()
	c.attribute(a.worker)
	if a.close && g.o.Keepalive {
		c.rec.closes.Announced++
	}
	if !g.expected(a.status) {
		if measured {
			c.rec.recordOther(a.status, now-at)
		}
		c.fail(outcome{class: Status, status: a.status, err: statusError(a.status), measured: measured, replaced: replaced})
		return
	}
	if g.o.Check != nil {
		if err := g.o.Check(a.status, a.body); err != nil {
			c.fail(outcome{class: Mismatch, status: a.status, err: err, measured: measured, replaced: replaced})
			return
		}
	}
	c.worker.answers.Add(1)
	if measured {
		c.worker.measured.Add(1)
		c.rec.last = now
		c.rec.conn.Answers++
		c.rec.conn.MaxLatency = max(c.rec.conn.MaxLatency, now-at)
		c.rec.statuses[a.status]++
		c.rec.latency.Record(now - at)
		if g.o.Trace {
			c.rec.trace = append(c.rec.trace, Point{At: now - g.o.Warmup, Took: now - at})
		}
	} else {
		c.rec.warm.Answers++
	}
	g.live.answered(now, measured)
}

// recordOther counts the latency of a whole answer of another status than expected.
func (rec *record) recordOther(status int, took time.Duration) {
	h := rec.others[status]
	if h == nil {
		if rec.others == nil {
			rec.others = map[int]*Histogram{}
		}
		h = &Histogram{}
		rec.others[status] = h
	}
	h.Record(took)
}

// statusError is the text of an unexpected status.
type statusError int

func (s statusError) Error() string { return "status " + strconv.Itoa(int(s)) }

func (g *Generator) expected(status int) bool {
	if g.o.Status != 0 {
		return status == g.o.Status
	}
	return status/100 == 2
}

// attribute notes which worker answered.
func (c *client) attribute(name []byte) {
	if len(name) == 0 || c.worker.name == string(name) {
		return
	}
	for _, w := range c.workers {
		if w.name == string(name) {
			c.worker = w
			return
		}
	}
	c.worker = c.g.live.worker(name)
	c.workers = append(c.workers, c.worker)
}
