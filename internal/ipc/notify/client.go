package notify

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Client sends to a notify socket. The zero Client, and a nil one, drop everything,
// as sd_notify does without NOTIFY_SOCKET.
type Client struct {
	mu   sync.Mutex // guards the fields
	fd   int
	open bool
	name string        // of the socket, for messages
	to   unix.Sockaddr // nil: it is connected
}

// FromEnvironment returns a client of NOTIFY_SOCKET and removes the variable, so that
// no child speaks in this process's name. Without the variable it returns nil.
func FromEnvironment() (*Client, error) {
	name := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if name == "" {
		return nil, nil
	}
	return Dial(name)
}

// Dial returns a client of the socket called name: a path, or @name for an abstract
// one. Nothing is sent yet.
func Dial(name string) (*Client, error) {
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return nil, fmt.Errorf("notify socket %q is neither a path nor an abstract name", name)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a notify socket: %w", err)
	}
	return newClient(fd, name, &unix.SockaddrUnix{Name: name})
}

// newClient returns a client on fd, which it takes over.
func newClient(fd int, name string, to unix.Sockaddr) (*Client, error) {
	if err := limitWaits(fd, unix.SO_SNDTIMEO); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Client{fd: fd, open: true, name: name, to: to}, nil
}

// Send sends the lines as one message. It never blocks: when the receiver's queue
// is full (net.unix.max_dgram_qlen may be as low as 10) the message is lost and the
// error says so. It is for what is repeated.
func (c *Client) Send(lines ...string) error { return c.send(unix.MSG_DONTWAIT, nil, lines) }

// SendWait is Send for what is said once: it waits for room, up to waitLimit.
func (c *Client) SendWait(lines ...string) error { return c.send(0, nil, lines) }

const waitLimit = 5 * time.Second

func (c *Client) send(flags int, fds []int, lines []string) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return nil
	}
	if err := sendLines(c.fd, c.to, flags, fds, lines); err != nil {
		return fmt.Errorf("notify %s: %w", c.name, err)
	}
	return nil
}

// limitWaits bounds what waits on fd by waitLimit: SO_SNDTIMEO or SO_RCVTIMEO (socket(7)).
func limitWaits(fd, option int) error {
	limit := unix.NsecToTimeval(waitLimit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
		return fmt.Errorf("limit the wait of a notify socket: %w", err)
	}
	return nil
}

// uninterrupted calls again what a signal has ended, up to waitLimit in all. A wait with a
// time limit is not restarted after one, whatever SA_RESTART says (signal(7)), and Go's
// scheduler sends signals to threads that wait for long.
func uninterrupted(call func() error) error {
	begun := time.Now()
	err := call()
	for err == unix.EINTR && time.Since(begun) < waitLimit {
		err = call()
	}
	return err
}

// sendLines sends lines, and descriptors along with them, as one message; to is nil on a
// connected socket.
func sendLines(fd int, to unix.Sockaddr, flags int, fds []int, lines []string) error {
	text := []byte(strings.Join(lines, "\n"))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return uninterrupted(func() error { return unix.Sendmsg(fd, text, rights, to, unix.MSG_NOSIGNAL|flags) })
}

// Peer returns the process that made the connected socket's pair, 0 if that is not known.
func (c *Client) Peer() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return 0
	}
	cred, err := unix.GetsockoptUcred(c.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}

// Close releases the socket.
func (c *Client) Close() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return nil
	}
	c.open = false
	return unix.Close(c.fd)
}
