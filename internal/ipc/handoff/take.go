package handoff

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Take receives the connection that has waited longest, or returns ErrEmpty or
// ErrNoRoom. The descriptor is the caller's, close-on-exec.
//
// A descriptor for which the receiver has no room is closed by the kernel (unix(7),
// MSG_CTRUNC), and so is the client's connection. Therefore Take looks first, with
// MSG_PEEK, which hands out a second reference to the connection and leaves the message
// where it is. Without room for that, and for one descriptor more, which net.FileConn
// will need, nothing has happened. With it, the connection is in hand before its message
// is taken.
func (q *Queue) Take() (connFD int, m Message, err error) {
	connFD = -1
	if e := q.readRaw.Control(func(fd uintptr) { connFD, m, err = q.take(int(fd)) }); e != nil {
		return -1, Message{}, q.closed(e)
	}
	return connFD, m, err
}

func (q *Queue) take(fd int) (int, Message, error) {
	for {
		seen, err := receive(fd, unix.MSG_PEEK)
		if err != nil {
			return -1, Message{}, err
		}
		if seen.discarded || seen.fd >= 0 && !room(seen.fd) {
			seen.close()
			return -1, Message{}, ErrNoRoom
		}
		got, err := receive(fd, 0)
		if err != nil { // another process took it
			seen.close()
			return -1, Message{}, err
		}
		if got.n == seen.n && got.data == seen.data && got.fd < 0 {
			got.fd, seen.fd = seen.fd, -1
		}
		seen.close()
		m, ours := got.decode()
		if ours && got.fd >= 0 {
			return got.fd, m, nil
		}
		if got.close(); ours && got.discarded {
			q.lost.Add(1)
		} else {
			q.dropped.Add(1)
		}
		if got.n == 0 { // as at the end of a queue that nobody can write to
			return -1, Message{}, ErrEmpty
		}
	}
}

// First looks at the connection that has waited longest, which stays where it is: somebody
// else may take it at any moment. look gets a descriptor of it, which it must not keep; -1: this
// process has no room for one. The error is ErrEmpty when no connection waits.
func (q *Queue) First(look func(fd int, m Message)) (err error) {
	e := q.readRaw.Control(func(fd uintptr) { err = first(int(fd), look) })
	if e != nil {
		return q.closed(e)
	}
	return err
}

func first(fd int, look func(fd int, m Message)) error {
	seen, err := receive(fd, unix.MSG_PEEK)
	if err != nil {
		return err
	}
	defer seen.close()
	if m, ours := seen.decode(); ours {
		look(seen.fd, m)
	}
	return nil
}

// Waits returns how many connections wait in a queue whose end that is read is fd, and when the
// request of the first was seen, by Clock; 0: none waits, or it has no request. For who holds the
// queue and takes nothing.
func Waits(fd int) (depth int, seen time.Duration) {
	if depth = waits(fd); depth == 0 {
		return 0, 0
	}
	_ = first(fd, func(_ int, m Message) { seen = m.Seen })
	return depth, seen
}

// waits is Depth of the queue that is read by fd. On SOCK_SEQPACKET FIONREAD sums the whole queue
// (unix_inq_len in net/unix/af_unix.c).
func waits(fd int) int {
	bytes, _ := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return bytes / messageBytes
}

// room tells whether the process may open one more descriptor.
func room(fd int) bool {
	more, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(more)
	return true
}

// parcel is one message as received.
type parcel struct {
	data      wire
	n         int  // bytes of data
	whole     bool // and there were no more
	fd        int  // -1: none
	discarded bool // the kernel had a descriptor that it could not give us
}

// receive returns the message at the head of the queue, and with MSG_PEEK leaves it there.
func receive(fd, flags int) (parcel, error) {
	p := parcel{fd: -1}
	control := make([]byte, unix.CmsgSpace(4)) // an int; the kernel closes what is beyond
	for {
		n, controlled, got, _, err := unix.Recvmsg(fd, p.data[:], control, flags|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return p, ErrEmpty
		case err != nil:
			return p, fmt.Errorf("take from the handoff queue: %w", err)
		}
		fds := rights(control[:controlled])
		for i, fd := range fds {
			if i == 0 {
				p.fd = fd
			} else {
				unix.Close(fd)
			}
		}
		p.n = n
		p.whole = n == messageBytes && got&unix.MSG_TRUNC == 0
		p.discarded = got&unix.MSG_CTRUNC != 0 && len(fds) == 0
		return p, nil
	}
}

// rights returns the descriptors in a control message.
func rights(control []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		if len(messages[i].Data)%4 != 0 { // no whole descriptors: ParseUnixRights would panic
			continue
		}
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func (p *parcel) decode() (Message, bool) {
	if !p.whole {
		return Message{}, false
	}
	return p.data.decode()
}

func (p *parcel) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}
