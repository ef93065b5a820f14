package handoff

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bufferBytes is asked for as send buffer. The kernel doubles it (socket(7)) and charges
// a message of up to 192 bytes with 768, so that it holds 10,923; the default holds 278.
const bufferBytes = 4 << 20

var (
	// ErrFull is returned by Put when the queue has no room or the kernel no more for
	// descriptors in flight. The connection is still the caller's.
	ErrFull = errors.New("the handoff queue is full")
	// ErrEmpty is returned by Take when no connection waits.
	ErrEmpty = errors.New("the handoff queue is empty")
	// ErrNoRoom is returned by Take when this process may not open the two descriptors
	// that a connection needs. It still waits, for whoever has room.
	ErrNoRoom = errors.New("no free descriptors for a connection of the handoff queue")
)

// Pair makes a queue and returns its two ends: close-on-exec and non-blocking, which is
// a property of the end that all processes share, and must stay so.
func Pair() (readFD, writeFD int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make a handoff queue: %w", err)
	}
	// Beyond net.core.wmem_max needs CAP_NET_ADMIN. A smaller buffer is a shorter
	// queue, and what does not fit stays with its worker.
	if unix.SetsockoptInt(p[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bufferBytes) != nil {
		_ = unix.SetsockoptInt(p[1], unix.SOL_SOCKET, unix.SO_SNDBUF, bufferBytes)
	}
	return p[0], p[1], nil
}

// Queue is a worker's hold on both ends of a pair.
type Queue struct {
	// The end that is read is registered with Go's poller, once, for Wait. The other
	// never waits; registered, it would wake the process for every message taken.
	read    *os.File
	readRaw syscall.RawConn

	mu    sync.RWMutex // guards write, against Close
	write int          // -1: closed

	id      atomic.Uint64 // of the last message; starts at random
	dropped atomic.Uint64
	lost    atomic.Uint64
}

// Open returns the queue whose ends were inherited. It takes over both descriptors, also
// when it returns an error.
func Open(readFD, writeFD int) (*Queue, error) {
	q := &Queue{write: writeFD}
	q.id.Store(rand.Uint64())
	for _, fd := range []int{readFD, writeFD} {
		unix.CloseOnExec(fd)
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err == nil && kind != unix.SOCK_SEQPACKET {
			err = errors.New("it is no SOCK_SEQPACKET socket")
		}
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		if err != nil {
			unix.Close(readFD)
			unix.Close(writeFD)
			return nil, fmt.Errorf("open handoff queue: descriptor %d: %w", fd, err)
		}
	}
	q.read = os.NewFile(uintptr(readFD), "handoff queue")
	raw, err := q.read.SyscallConn()
	if err != nil {
		q.Close()
		return nil, fmt.Errorf("open handoff queue: %w", err)
	}
	q.readRaw = raw
	return q, nil
}

// Close closes this process's hold on both ends. Connections in the queue stay there as
// long as another process holds it.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.write < 0 {
		return os.ErrClosed
	}
	unix.Close(q.write)
	q.write = -1
	return q.read.Close()
}

// Put sends connFD without waiting. After nil the connection is the queue's, and the
// caller closes its own copy of the descriptor without a shutdown(2). After an error, as
// ErrFull, it is the caller's as before.
func (q *Queue) Put(connFD int, m Message) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.write < 0 {
		return os.ErrClosed
	}
	w := m.encode(q.id.Add(1))
	for {
		_, err := unix.SendmsgN(q.write, w[:], unix.UnixRights(connFD), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case err == nil: // a message of SOCK_SEQPACKET goes whole or not at all
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM),
			errors.Is(err, unix.ETOOMANYREFS): // more in flight than RLIMIT_NOFILE, unix(7)
			return ErrFull
		default:
			return fmt.Errorf("put a connection into the handoff queue: %w", err)
		}
	}
}

// Depth returns how many connections wait.
func (q *Queue) Depth() int {
	depth := 0
	if err := q.readRaw.Control(func(fd uintptr) { depth = waits(int(fd)) }); err != nil {
		return 0
	}
	return depth
}

// Dropped returns how many messages this process has thrown away because they were not
// written by Put.
func (q *Queue) Dropped() uint64 { return q.dropped.Load() }

// Lost returns how many connections the kernel has closed because this process reached
// its limit of descriptors in the very moment of a Take.
func (q *Queue) Lost() uint64 { return q.lost.Load() }

// Wait blocks until a connection seems to wait, which another process may take first,
// or until ctx ends.
func (q *Queue) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = q.read.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		err := q.readRaw.Read(readable)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return q.closed(err)
		}
		// The end of an earlier Wait's context. If this one's ends before the deadline
		// is taken away, the check behind it sees that.
		if err := q.read.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// closed returns os.ErrClosed for what a RawConn says after Close: the error of package
// internal/poll, which nobody can name.
func (q *Queue) closed(err error) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if err != nil && q.write < 0 {
		return os.ErrClosed
	}
	return err
}

// readable looks without receiving. The poller reports edges: it is asked before each wait.
func readable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}
