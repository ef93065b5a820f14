package accept

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limit is a number of connections that several listeners share.
type Limit struct{ free chan struct{} }

// NewLimit returns a limit of n connections.
func NewLimit(n int) *Limit { return &Limit{free: make(chan struct{}, n)} }

// Open returns how many connections are held.
func (l *Limit) Open() int { return len(l.free) }

// Listener accepts from one shared socket.
type Listener struct {
	net.Listener
	limit *Limit
	stop  chan struct{}
	once  sync.Once
}

// New returns a listener on ln that accepts while limit has room. It owns ln.
func New(ln net.Listener, limit *Limit) *Listener {
	return &Listener{Listener: ln, limit: limit, stop: make(chan struct{})}
}

// Accept waits for room and for a connection. After Stop it first returns what waits
// in the kernel, then io.EOF.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case l.limit.free <- struct{}{}:
	case <-l.stop:
		return l.last()
	}
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		c, err := l.Listener.Accept()
		if err == nil {
			return &conn{Conn: c, limit: l.limit}, nil
		}
		select {
		case <-l.stop:
			<-l.limit.free
			return l.last()
		default:
		}
		if !passing(err) {
			<-l.limit.free
			return nil, err
		}
		select {
		case <-l.stop:
		case <-time.After(wait):
		}
	}
}

// How long to wait when the kernel has no room for another connection: until some are
// closed. The connection meanwhile waits in the queue, for us or for another worker.
const (
	firstWait = 5 * time.Millisecond
	maxWait   = time.Second
)

// passing tells whether err of accept(2) goes away by itself.
func passing(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EPERM, unix.EPROTO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// last returns a connection that already waits, or io.EOF. Beyond the limit there is
// no other worker to leave it to: whoever stops, stops with the service.
func (l *Listener) last() (net.Conn, error) {
	c, err := l.acceptNow()
	if err != nil {
		return nil, io.EOF
	}
	select {
	case l.limit.free <- struct{}{}:
		return &conn{Conn: c, limit: l.limit}, nil
	default:
		return c, nil
	}
}

// acceptNow accepts without waiting. Go's own Accept does not look at the queue once
// its deadline has passed.
func (l *Listener) acceptNow() (net.Conn, error) {
	sc, ok := l.Listener.(syscall.Conn)
	if !ok {
		return nil, errors.New("the listener has no descriptor")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var accepted error
	if err := raw.Control(func(s uintptr) {
		fd, _, accepted = unix.Accept4(int(s), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	}); err != nil {
		return nil, err
	}
	if accepted != nil {
		return nil, accepted
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	return net.FileConn(f)
}

// Stop makes Accept return what waits and then io.EOF. It does not close the socket.
func (l *Listener) Stop() {
	l.once.Do(func() {
		close(l.stop)
		if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
			_ = d.SetDeadline(time.Unix(1, 0))
		}
	})
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	limit *Limit
	once  sync.Once
}

// Close closes the connection. It may be called more than once.
func (c *conn) Close() error {
	c.once.Do(func() { <-c.limit.free })
	return c.Conn.Close()
}
