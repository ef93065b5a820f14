package accept

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"preforkd/internal/ipc/handoff"
)

// Taker is a net.Listener whose connections come, each with a request, from the queue that all
// workers have in common. It takes one when this worker has a permit for it.
type Taker struct {
	*taking
}

// Sweeper is a net.Listener that takes from the same queue without a permit what does not need
// one any more: the first in it, when its client has gone or its time is over.
type Sweeper struct {
	*taking
}

// taking is what the two have in common.
type taking struct {
	pool  *Pool
	waits *waiting
	poke  chan struct{} // one token: there is something, and no permit for it

	run  context.Context // ends with Stop: then only what is there is taken
	stop context.CancelFunc
	all  context.Context // ends with End: nothing is taken any more
	end  context.CancelFunc
}

// Share makes the pool one of those whose requests wait in w, and returns what takes from there. It
// is called once, before anything is accepted.
func (p *Pool) Share(w Wait) (*Taker, *Sweeper) {
	t := &taking{pool: p, waits: &waiting{Wait: w, most: mostUnread()}, poke: make(chan struct{}, 1)}
	t.waits.emptyAt.Store(w.Puts.Load() - 1) // nobody has looked yet
	if w.Takes {
		t.waits.end()
	}
	t.all, t.end = context.WithCancel(context.Background())
	t.run, t.stop = context.WithCancel(t.all)
	taker := &Taker{t}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits = t.waits
	p.takers = append(p.takers, taker)
	return taker, &Sweeper{t}
}

// Accept waits for a connection, then for a permit. After Stop it returns what there is, and when
// nobody waits io.EOF; after End at once. One goroutine calls it.
func (t *Taker) Accept() (net.Conn, error) {
	for {
		if err := t.wait(); err != nil {
			return nil, err
		}
		permit, ok := t.waits.Permits.Take()
		if !ok {
			t.sweep()
			if permit = t.stand(); permit == none {
				<-t.run.Done() // nobody will get one any more
				return nil, io.EOF
			}
		}
		c, err := t.take(permit)
		if err == nil {
			return c, nil
		}
		t.waits.Permits.Release(permit)
		switch {
		case errors.Is(err, handoff.ErrNoRoom), passing(err): // it waits on, perhaps for another worker
			t.pause(firstWait)
		case errors.Is(err, os.ErrClosed):
			return nil, err
		}
	}
}

// wait returns when a connection seems to wait.
func (t *Taker) wait() error {
	err := t.waits.Queue.Wait(t.run)
	switch {
	case t.all.Err() != nil:
		return io.EOF
	case err == nil:
		return nil
	case t.run.Err() == nil:
		return err
	case t.waits.Queue.Depth() == 0:
		return io.EOF
	}
	return nil
}

// none is no permit.
const none = -1

// take takes the first connection, with the permit that it shall have. Without one it takes what is
// over: whoever answers it finds that out again, and counts it. Where another worker was faster it has
// got the next one: that waits for a permit here, before all who come later.
func (t *taking) take(permit int) (net.Conn, error) {
	t.pool.movable.Add(1) // before it leaves the queue, as an Adopter does
	fd, m, err := t.waits.Queue.Take()
	if err != nil {
		t.pool.unmovable()
		return nil, err
	}
	own := permit == none && !over(fd, m)
	if own {
		permit = t.stand()
	}
	c, err := received(t.waits.Queue, fd, m, handoff.Waiting)
	if err != nil {
		t.pool.unmovable()
		if own && permit != none {
			t.waits.Permits.Release(permit)
		}
		return nil, err
	}
	conn := &conn{Conn: c, listener: m.Listener, since: m.Since, adopted: true, client: m.Client, seen: max(m.Seen, 1)}
	select {
	case t.pool.places <- struct{}{}:
		conn.place = true
	default: // beyond the limit, by no more than there are permits at once: others may be as full
	}
	conn.held.Store(int32(permit) + 1)
	t.pool.add(conn)
	t.waits.taken.Add(1)
	return conn, nil
}

// stand waits for a permit; none: there will be none.
func (t *taking) stand() (permit int) {
	permit, ok := t.waits.Permits.Stand(t.all.Done())
	if !ok {
		return none
	}
	return permit
}

// sweep has the Sweeper look.
func (t *taking) sweep() {
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// pause waits; it is cut short by End.
func (t *taking) pause(d time.Duration) {
	select {
	case <-t.all.Done():
	case <-time.After(d):
	}
}

// sweepEvery is how often a Sweeper looks at who is first, while anybody waits.
const sweepEvery = 25 * time.Millisecond

// Accept waits until the first in the queue is to be answered without a permit, and returns it. After
// Stop it returns io.EOF once nobody waits, and then the Taker stands for no permit any more. One
// goroutine calls it.
func (s *Sweeper) Accept() (net.Conn, error) {
	for s.all.Err() == nil {
		if s.waits.anybody() {
			if c := s.remove(); c != nil {
				return c, nil
			}
			s.pause(sweepEvery)
			continue
		}
		select {
		case <-s.run.Done():
			if s.waits.Queue.Depth() == 0 { // who puts after this worker has stopped takes as well
				s.end()
			}
			s.pause(sweepEvery)
		case <-s.poke:
		}
	}
	return nil, io.EOF
}

// remove takes the first if it does not want a permit any more.
func (s *Sweeper) remove() net.Conn {
	needless := false
	if s.waits.Queue.First(func(fd int, m handoff.Message) { needless = over(fd, m) }) != nil || !needless {
		return nil
	}
	c, err := s.take(none)
	if err != nil {
		return nil
	}
	return c
}

// over tells whether a request needs no permit any more.
func over(fd int, m handoff.Message) bool {
	if m.Limit > 0 && handoff.Clock()-m.Seen >= m.Limit {
		return true
	}
	return fd >= 0 && hungUp(fd)
}

// Stop makes Accept return io.EOF once nobody waits; nothing more is put into the queue from here.
func (t *taking) Stop() {
	t.waits.end()
	t.stop()
}

// End makes Accept return io.EOF; what waits in the queue stays there.
func (t *taking) End() { t.end() }

// Close is Stop: the queue belongs to the worker, and a server that shuts down answers first who waits.
func (t *taking) Close() error {
	t.Stop()
	return nil
}

// Addr returns the name of the queue; its connections have addresses of their own.
func (t *taking) Addr() net.Addr { return &net.UnixAddr{Name: "wait", Net: "unixpacket"} }

// mostLocal is the largest request of a Unix socket that waits unread: its client's send buffer, by
// default 208 KiB, is all the room that there is, and bookkeeping takes some of it (unix(7)).
const mostLocal = 64 << 10

// mostUnread is the largest request of TCP that the kernel can hold: it does not let SO_RCVLOWAT go
// beyond half of the receive buffer's maximum (tcp_set_rcvlowat in net/ipv4/tcp.c).
func mostUnread() int {
	const usual = 6 << 20
	most := usual
	if text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_rmem"); err == nil {
		if sizes := strings.Fields(string(text)); len(sizes) == 3 {
			if n, err := strconv.Atoi(sizes[2]); err == nil {
				most = n
			}
		}
	}
	return most/2 - windowRoom
}

// windowRoom is how much larger than a request that waits the window of its connection is made. The kernel
// announces a window rounded down to a multiple of up to 16 KiB (RFC 7323, section 2.2), so that of one as large as the
// request its end would not be sent; and it calls a connection readable whose window is smaller than a
// segment (tcp_epollin_ready in net/ipv4/tcp.c), which on the loopback device has 64 KiB.
const windowRoom = 128 << 10
