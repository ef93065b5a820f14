package peer

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	asked = unix.POLLRDHUP
	ended = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
)

// raw returns what c is made on, below TLS and other wrappers; nil: that is no descriptor.
func raw(c net.Conn) syscall.RawConn {
	for c != nil {
		switch x := c.(type) {
		case syscall.Conn:
			if r, err := x.SyscallConn(); err == nil {
				return r
			}
			return nil
		case interface{ NetConn() net.Conn }:
			c = x.NetConn()
		default:
			return nil
		}
	}
	return nil
}

// Gone tells whether the other end of c has gone.
func Gone(c net.Conn) bool {
	r := raw(c)
	if r == nil {
		return false
	}
	fds := [1]unix.PollFd{}
	n := 0
	if err := r.Control(func(fd uintptr) {
		fds[0] = unix.PollFd{Fd: int32(fd), Events: asked}
		n = poll(fds[:])
	}); err != nil { // closed by our own side
		return true
	}
	return n > 0 && fds[0].Revents&ended != 0
}

// Watch looks at many connections at once.
type Watch struct{ fds []unix.PollFd }

// Reset forgets all connections.
func (w *Watch) Reset() { w.fds = w.fds[:0] }

// Add adds a connection; the first one has the index 0.
func (w *Watch) Add(c net.Conn) {
	at := unix.PollFd{Fd: -1, Events: asked} // poll skips what is below 0
	if r := raw(c); r != nil {
		_ = r.Control(func(fd uintptr) { at.Fd = int32(fd) })
	}
	w.fds = append(w.fds, at)
}

// Look calls gone with the index of each connection whose other end seems to have gone. A
// connection may have been closed on this side meanwhile and its descriptor have become
// another's: Gone is sure.
func (w *Watch) Look(gone func(i int)) {
	if poll(w.fds) <= 0 {
		return
	}
	for i := range w.fds {
		if w.fds[i].Revents&ended != 0 {
			gone(i)
		}
	}
}

// poll does not wait.
func poll(fds []unix.PollFd) int {
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n
		}
	}
}
