package notify

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Beside what sd_notify(3) knows, a server made by Serve keeps descriptors for those who
// speak to it and their successors: FDSTORE=1 with FDNAME= and FDSTOREREMOVE=1 with
// FDNAME=, as a service manager's store does, and FETCH=1, which gives out all of them. The
// text is stable between versions: keys that are not known are ignored.

// Pair makes the two ends of a notify channel: the first is Serve's, the second DialFD's,
// or that of a process that inherits it. Both are the caller's, and close-on-exec.
func Pair() (server, client int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make a notify channel: %w", err)
	}
	return p[0], p[1], nil
}

// Serve receives messages on fd, the first end of a Pair or a bound datagram socket, which
// it takes over. handle is called for each message, by one goroutine; the descriptors that
// come along are its own.
func Serve(fd int, handle func(Message)) (*Server, error) {
	conn, err := packetConn(fd)
	if err != nil {
		return nil, fmt.Errorf("serve notify descriptor %d: %w", fd, err)
	}
	return begin(&Server{conn: conn, descriptors: true}, handle)
}

// ListenFD is Listen on a socket that somebody keeps: what Duplicate returned. It takes
// over fd.
func ListenFD(fd int, handle func(Message)) (*Server, error) {
	conn, err := packetConn(fd)
	if err != nil {
		return nil, fmt.Errorf("listen on notify descriptor %d: %w", fd, err)
	}
	return begin(&Server{conn: conn}, handle)
}

func packetConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "notify")
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("it is no unix socket")
	}
	return conn, nil
}

// Duplicate returns another descriptor of the server's socket, close-on-exec and the
// caller's, by which a successor can take it over: senders then notice nothing.
func (s *Server) Duplicate() (fd int, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(own uintptr) {
		fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(controlErr, err)
}

// DialFD returns a client on the second end of a Pair, which it takes over.
func DialFD(fd int) (*Client, error) {
	unix.CloseOnExec(fd)
	return newClient(fd, fmt.Sprintf("descriptor %d", fd), nil)
}

// FD is the descriptor that DialFD took over, for a process that inherits it. It stays the
// client's.
func (c *Client) FD() int { return c.fd }

// Store has the server keep another descriptor of what fd is, under a name, in place of one
// that it keeps by then. More lines may go with it.
func (c *Client) Store(name string, fd int, more ...string) error {
	return c.send(0, []int{fd}, append([]string{"FDSTORE=1", "FDNAME=" + name}, more...))
}

// Remove has the server close what it keeps under a name.
func (c *Client) Remove(name string) error {
	return c.send(0, nil, []string{"FDSTOREREMOVE=1", "FDNAME=" + name})
}

// Barrier returns when the server has read all that was sent before: BARRIER=1 in
// sd_notify_barrier(3).
func (c *Client) Barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make a barrier: %w", err)
	}
	defer unix.Close(p[0])
	err := c.send(0, []int{p[1]}, []string{"BARRIER=1"})
	unix.Close(p[1])
	if err != nil {
		return err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p[0])}}, int(waitLimit.Milliseconds())) // POLLHUP
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// batch is how many descriptors go with one message: the kernel takes 253 (unix(7)).
const batch = 200

// Fetch returns all that the server keeps, by name, and what it says with it. The
// descriptors are the caller's.
func (c *Client) Fetch() (held map[string]int, said Message, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, said, fmt.Errorf("make a socket for what is kept: %w", err)
	}
	defer unix.Close(p[0])
	err = c.send(0, []int{p[1]}, []string{"FETCH=1"})
	unix.Close(p[1])
	if err != nil {
		return nil, said, err
	}
	if err := limitWaits(p[0], unix.SO_RCVTIMEO); err != nil {
		return nil, said, err
	}
	held = map[string]int{}
	for {
		said, err := receiveHeld(p[0], held)
		if err != nil {
			for _, fd := range held {
				unix.Close(fd)
			}
			return nil, said, fmt.Errorf("fetch what the main process keeps: %w", err)
		}
		if _, end := said.Get("END"); end {
			return held, said, nil
		}
	}
}

// receiveHeld adds one message of Answer to held.
func receiveHeld(fd int, held map[string]int) (m Message, err error) {
	text := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	var n, oobn, flags int
	if err := uninterrupted(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, text, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	}); err != nil {
		return m, err
	}
	_, fds := control(oob[:oobn])
	m = Message{Text: string(text[:n])}
	var names []string
	for line := range strings.SplitSeq(m.Text, "\n") {
		if name, ok := strings.CutPrefix(line, "FDNAME="); ok {
			names = append(names, name)
		}
	}
	if n == 0 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(names) != len(fds) {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return m, fmt.Errorf("it ended early, or %d names came with %d descriptors: is the limit of open files reached?", len(names), len(fds))
	}
	for i, name := range names {
		held[name] = fds[i]
	}
	return m, nil
}

// Answer answers a FETCH on the socket that came with it, which it closes. More lines go
// with the last message.
func Answer(fd int, held map[string]int, more ...string) error {
	defer unix.Close(fd)
	if err := limitWaits(fd, unix.SO_SNDTIMEO); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(held))
	for {
		some := names[:min(len(names), batch)]
		names = names[len(some):]
		var lines []string
		var fds []int
		for _, name := range some {
			lines, fds = append(lines, "FDNAME="+name), append(fds, held[name])
		}
		if len(names) == 0 {
			lines = append(append(lines, more...), "END=1")
		}
		if err := sendLines(fd, nil, 0, fds, lines); err != nil {
			return fmt.Errorf("answer a fetch: %w", err)
		}
		if len(names) == 0 {
			return nil
		}
	}
}
