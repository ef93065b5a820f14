package accept

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc/handoff"
)

// askAgain is how long an Adopter that may not take waits before it asks again. What
// allows it is a word in shared memory, which wakes nobody.
const askAgain = 20 * time.Millisecond

var (
	errNotAllowed = errors.New("this worker may not take connections now")
	errNoPlace    = errors.New("this worker holds its maximum of connections")
)

// Adopter is a net.Listener whose connections come from other workers, through a queue.
type Adopter struct {
	pool    *Pool
	queue   *handoff.Queue
	allowed func() bool
	poke    chan struct{} // one token: ask again
	ctx     context.Context
	cancel  context.CancelFunc

	mu         sync.Mutex // guards the fields below; held while one is taken
	leaving    bool
	reclaiming bool // until the queue is empty

	counter *atomic.Uint64 // of what take has returned; used by Accept's goroutine
}

// Adopter returns a listener on what other workers put into q. It takes a connection
// while the pool has room and allowed returns true; allowed must not block, and may ask the
// pool. Once the pool leaves it takes nothing, except what nobody else took in the pool's patience.
func (p *Pool) Adopter(q *handoff.Queue, allowed func() bool) *Adopter {
	a := &Adopter{pool: p, queue: q, allowed: allowed, poke: make(chan struct{}, 1)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adopters = append(p.adopters, a)
	a.leaving = p.left
	return a
}

// Accept waits for a connection. After Stop it returns io.EOF. One goroutine calls it.
func (a *Adopter) Accept() (net.Conn, error) {
	for wait := firstWait; a.ctx.Err() == nil; {
		fd, m, err := a.take()
		var again <-chan time.Time
		switch {
		case err == nil:
			c, err := a.adopt(fd, m)
			if err == nil {
				return c, nil
			}
			if !passing(err) { // this one's client has gone
				continue
			}
			again = time.After(wait)
		case errors.Is(err, handoff.ErrEmpty):
			if err := a.queue.Wait(a.ctx); err != nil && a.ctx.Err() == nil {
				return nil, err
			}
			continue
		case errors.Is(err, errNoPlace):
			a.awaitPlace()
			continue
		case errors.Is(err, errNotAllowed):
			again = time.After(askAgain)
		case errors.Is(err, handoff.ErrNoRoom): // it waits in the queue, perhaps for another worker
			again = time.After(wait)
			wait = min(2*wait, maxWait)
		default:
			return nil, err
		}
		select {
		case <-a.ctx.Done():
		case <-a.poke:
		case <-again:
		}
	}
	return nil, io.EOF
}

// take receives a connection, counted as movable and with a place of the pool. The lock
// makes it one step with the answer whether this worker takes at all: a worker that
// leaves does not take what it has given.
func (a *Adopter) take() (fd int, m handoff.Message, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.reclaiming && (a.leaving || !a.allowed()) {
		return -1, m, errNotAllowed
	}
	select {
	case a.pool.places <- struct{}{}:
	default:
		return -1, m, errNoPlace
	}
	a.pool.movable.Add(1)
	fd, m, err = a.queue.Take()
	if err != nil {
		a.dismiss()
		if errors.Is(err, handoff.ErrEmpty) && a.reclaiming {
			a.reclaiming = false
			err = errNotAllowed // perhaps; the next look tells
		}
		return -1, m, err
	}
	a.counter = &a.pool.adopted
	if a.reclaiming {
		a.counter = &a.pool.reclaimed
	}
	return fd, m, nil
}

// dismiss undoes what take has counted.
func (a *Adopter) dismiss() {
	<-a.pool.places
	a.pool.unmovable()
}

// adopt makes a connection of a descriptor, which it takes over. Should the room that
// Take found be gone, it puts the descriptor back and returns a passing error.
func (a *Adopter) adopt(fd int, m handoff.Message) (net.Conn, error) {
	c, err := received(a.queue, fd, m, handoff.Idle)
	if err != nil {
		a.dismiss()
		return nil, err
	}
	conn := &conn{Conn: c, listener: m.Listener, since: m.Since, place: true, adopted: true, client: m.Client}
	a.pool.add(conn)
	a.counter.Add(1)
	return conn, nil
}

// received makes a connection of a descriptor, which it takes over: it has come with m, which shall
// be of that kind, through q. Should the room that Take found be gone, it puts the descriptor back
// and returns a passing error.
func received(q *handoff.Queue, fd int, m handoff.Message, kind handoff.Kind) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close() // net.FileConn has a duplicate; one of them with Go's poller is enough
	c, err := net.FileConn(f)
	for wait := firstWait; err != nil && passing(err); wait = min(2*wait, maxWait) {
		if q.Put(fd, m) == nil {
			break
		}
		time.Sleep(wait) // a full queue as well: nobody else can take care of it
		c, err = net.FileConn(f)
	}
	switch {
	case err == nil && m.Kind != kind:
		err = errors.ErrUnsupported
	case err == nil && c.RemoteAddr() == nil:
		err = unix.ENOTCONN // what getpeername(2) said: reset by the client
	}
	if err != nil {
		if c != nil {
			c.Close()
		}
		return nil, err
	}
	return c, nil
}

// awaitPlace returns when the pool may have a place.
func (a *Adopter) awaitPlace() {
	select {
	case a.pool.places <- struct{}{}:
		<-a.pool.places
	case <-a.ctx.Done():
	}
}

// leave ends taking what others give.
func (a *Adopter) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaving = true
}

// reclaim takes what waits, whatever else is said, until the queue is empty.
func (a *Adopter) reclaim() {
	a.mu.Lock()
	a.reclaiming = true
	a.mu.Unlock()
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// Stop makes Accept return io.EOF. What waits in the queue stays there.
func (a *Adopter) Stop() { a.cancel() }

// Close is Stop: the queue belongs to the worker.
func (a *Adopter) Close() error {
	a.cancel()
	return nil
}

// Addr returns the name of the queue; its connections have addresses of their own.
func (a *Adopter) Addr() net.Addr { return &net.UnixAddr{Name: "handoff", Net: "unixpacket"} }

// passing tells whether err goes away by itself, of accept(2) or of dup(2).
func passing(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EPERM, unix.EPROTO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
