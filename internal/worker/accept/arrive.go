package accept

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc/handoff"
)

// arrival is a Read under way. Used by the goroutine that serves.
type arrival struct {
	raw   syscall.RawConn
	step  func(fd uintptr) (done bool) // made once: the closure is an allocation
	p     []byte
	n     int
	err   error
	again bool // the kernel has been asked before
	lowat int  // what SO_RCVLOWAT is; 0: the default
	phase int  // of a request that is not complete, and not read
	late  bool // its time was over before it was complete
}

// Phases of a request that is not complete.
const (
	nothing  = iota // of it has come
	inHeader        // it waits for more of its header
	inBody          // or of its body
)

// read reads what is there, or waits. Between two requests it takes a permit along, where the
// request that comes needs one; a Read that would block gives it back.
func (c *conn) read(p []byte) (int, error) {
	if c.waits == nil || c.stays || c.state.Load() != between && c.held.Load() == 0 {
		return c.Conn.Read(p)
	}
	a := &c.arrival
	if a.raw == nil {
		sc, ok := c.Conn.(syscall.Conn)
		if !ok {
			return c.Conn.Read(p)
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return 0, err
		}
		a.raw, a.step = raw, c.readable
	}
	a.p, a.n, a.err, a.again = p, 0, nil, false
	err := a.raw.Read(a.step)
	a.p = nil
	if err != nil {
		return 0, err
	}
	c.forgetHalf()
	return a.n, a.err
}

// readable is called when there may be something to read; false: there is not, or not enough.
func (c *conn) readable(fd uintptr) (done bool) {
	a, w := &c.arrival, c.waits
	if c.state.Load() != between { // in a request
		if done = c.receive(int(fd)); !done {
			c.release()
		}
		return done
	}
	if held := c.held.Load(); held > 0 { // a taker has brought one
		return c.readWith(int(fd), int(held)-1)
	}
	if c.seen > 0 { // or it needs none
		return c.receive(int(fd))
	}
	if !a.again { // mostly nothing has come yet, and then no permit need be held for a moment
		a.again = true
		if !readable(int(fd)) {
			return false
		}
	}
	if !w.anybody() {
		if permit, ok := w.Permits.Take(); ok {
			return c.readWith(int(fd), permit)
		}
	}
	return c.classify(int(fd))
}

// readWith reads with a permit in hand, and keeps it if the request needs one.
func (c *conn) readWith(fd, permit int) (done bool) {
	a := &c.arrival
	c.held.Store(int32(permit) + 1)
	done = c.receive(fd)
	if !done { // a client that has nothing there any more
		c.seen = 0
	}
	if !done || a.n == 0 || !c.waits.Computes(a.p[:a.n]) {
		c.release()
	}
	return done
}

// classify looks at what has come without reading it. What needs a permit waits in the queue,
// once it is complete in the kernel; all else is read.
func (c *conn) classify(fd int) (done bool) {
	a, w := &c.arrival, c.waits
	if w.closed.Load() {
		return c.receive(fd)
	}
	n, err := peek(fd, a.p)
	if err == unix.EAGAIN {
		return false
	}
	if err != nil || n == 0 {
		return c.receive(fd)
	}
	head, complete := w.Look(a.p[:n])
	switch {
	case !complete && n < len(a.p) && !hungUp(fd):
		c.begins(inHeader)
		return false
	case !complete, !head.Computes, head.Size == 0, head.Size > c.most():
		return c.receive(fd)
	case !w.anybody() && w.Stays != nil && w.Stays():
		return c.receive(fd)
	case head.Size > n:
		whole, more := c.whole(fd, head.Size)
		switch {
		case more:
			return false
		case !whole:
			return c.receive(fd)
		}
	}
	if !w.anybody() { // it may have been held for a request that did not need it
		if permit, ok := w.Permits.Take(); ok {
			return c.readWith(fd, permit)
		}
	}
	return c.queue(fd, head)
}

// queue puts the connection into the queue with its request, or reads that where it may not or
// cannot wait there.
func (c *conn) queue(fd int, head Head) (done bool) {
	a, w := &c.arrival, c.waits
	if c.refused = w.Admits(head); c.refused != nil {
		return c.receive(fd)
	}
	c.lower(fd, 0) // who takes it may want to read less
	m := c.message(handoff.Waiting)
	m.Seen, m.Limit = handoff.Clock(), head.Limit
	if w.send(fd, m) != nil { // full, or shut
		return c.receive(fd)
	}
	c.state.Store(given)
	a.err = net.ErrClosed
	return true
}

// whole tells whether so many bytes have come, and if not, whether the connection shall wait for
// more. More is false where none will come: as of a client that has closed its side.
func (c *conn) whole(fd, size int) (whole, more bool) {
	if available(fd) >= size {
		return true, false
	}
	asked := int16(unix.POLLRDHUP)
	if !c.local {
		if c.arrival.lowat != size {
			c.lower(fd, size+windowRoom) // which makes the window so large, and the next line no smaller
		}
		c.lower(fd, size) // one wake-up, when all of it is there
		asked |= unix.POLLIN
	}
	for pause := time.Millisecond; pause <= roomPause; pause *= 2 {
		if !c.local {
			_, _ = peek(fd, c.arrival.p[:1]) // which announces the window, if it has become twice as large
		}
		got := poll(fd, asked)
		switch {
		case got == 0:
			c.begins(inBody)
			return false, true
		case available(fd) >= size: // it has come meanwhile
			return true, false
		case got&^unix.POLLIN != 0:
			return false, false
		}
		time.Sleep(pause)
	}
	return false, false
}

// roomPause is the last of the growing pauses after which whole looks again at a connection that is readable
// though not all has come: TCP's window may be full for a moment only (tcp_epollin_ready in net/ipv4/tcp.c), which
// no event ends, or the kernel has no more room. Together they are longer than a sender waits before it
// asks for more window: 200 ms (TCP_RTO_MIN).
const roomPause = 128 * time.Millisecond

// begins notes that there is part of a request, whose clock runs from now on.
func (c *conn) begins(phase int) {
	a := &c.arrival
	if a.phase >= phase {
		return
	}
	if a.phase == nothing {
		c.waits.half.Add(1)
	}
	a.phase = phase
	switch d := c.waits.BodyTime; {
	case phase == inHeader:
		c.clock.turns(header)
	case d > 0:
		_ = c.SetReadDeadline(time.Now().Add(d))
	default:
		c.clock.turns(noClock)
	}
}

// forgetHalf notes that a request is read, or has gone.
func (c *conn) forgetHalf() {
	if c.arrival.phase != nothing {
		c.arrival.phase = nothing
		c.waits.half.Add(-1)
	}
}

// readLate reads what there is of a request whose time is over, so that the server answers it as
// any that comes too slowly.
func (c *conn) readLate(p []byte) (int, error) {
	a := &c.arrival
	c.forgetHalf()
	a.late, a.p = true, p
	got := false
	err := a.raw.Control(func(fd uintptr) { got = c.receive(int(fd)) })
	a.p = nil
	switch {
	case err != nil:
		return 0, err
	case !got:
		return 0, os.ErrDeadlineExceeded
	}
	return a.n, a.err
}

// receive reads what there is; false: nothing.
func (c *conn) receive(fd int) (done bool) {
	a := &c.arrival
	c.lower(fd, 0)
	n, err := take(fd, a.p)
	switch {
	case err == unix.EAGAIN:
		return false
	case err != nil:
		a.n, a.err = 0, os.NewSyscallError("read", err)
	case n == 0 && len(a.p) > 0:
		a.n, a.err = 0, io.EOF
	default:
		a.n = n
	}
	return true
}

// lower sets SO_RCVLOWAT; 0: to the default.
func (c *conn) lower(fd, size int) {
	a := &c.arrival
	if a.lowat == size || c.local {
		return
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, max(size, 1)) == nil {
		a.lowat = size
	}
}

// release gives back the permit that the connection holds, if any.
func (c *conn) release() {
	if held := c.held.Swap(0); held > 0 {
		c.waits.Permits.Release(int(held) - 1)
	}
}

// most is the largest request that the kernel can hold.
func (c *conn) most() int {
	if c.local {
		return mostLocal
	}
	return c.waits.most
}

// peek looks at what there is. It allocates: Recvfrom makes an address.
func peek(fd int, p []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// take reads what there is from a descriptor that does not block.
func take(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// readable tells whether there is anything to read, or an end or an error to find out.
func readable(fd int) bool { return poll(fd, unix.POLLIN|unix.POLLRDHUP) != 0 }

func available(fd int) int {
	n, _ := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return n
}

func hungUp(fd int) bool { return poll(fd, unix.POLLRDHUP) != 0 }

func poll(fd int, events int16) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(fds[:], 0)
		if err != unix.EINTR {
			return fds[0].Revents
		}
	}
}
