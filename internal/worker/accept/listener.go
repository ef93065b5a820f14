package accept

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listener accepts from one shared socket.
type Listener struct {
	net.Listener
	pool  *Pool
	index int

	tls     *sealing // nil: TLS is not spoken
	trusted *Proxies // those whose connections begin with a PROXY header; nil: none do

	stop    chan struct{}
	rest    bool // read after stop: what waits in the kernel is served first
	once    sync.Once
	serving atomic.Bool   // Accept has been called
	ended   chan struct{} // Accept has returned io.EOF
	endOnce sync.Once
}

// Listener returns a listener on ln that accepts while the pool has room. It owns ln.
// Index names ln among the worker's sockets.
func (p *Pool) Listener(ln net.Listener, index int) *Listener {
	l := &Listener{Listener: ln, pool: p, index: index, stop: make(chan struct{}), ended: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners = append(p.listeners, l)
	if p.left {
		l.end(false)
	}
	return l
}

// Accept waits for room and for a connection. After Stop it first returns what waits
// in the kernel, then io.EOF; after Leave io.EOF.
func (l *Listener) Accept() (net.Conn, error) {
	l.serving.Store(true)
	c, err := l.accept()
	if err == io.EOF {
		l.endOnce.Do(func() { close(l.ended) })
	}
	return c, err
}

func (l *Listener) accept() (net.Conn, error) {
	select {
	case l.pool.places <- struct{}{}:
	case <-l.stop:
		return l.last()
	}
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		c, err := l.Listener.Accept()
		if err == nil {
			if wait = firstWait / 2; !l.admits(c) {
				continue
			}
			return l.wrap(c, true), nil
		}
		select {
		case <-l.stop:
			<-l.pool.places
			return l.last()
		default:
		}
		if !passing(err) {
			<-l.pool.places
			return nil, err
		}
		select {
		case <-l.stop:
		case <-time.After(wait):
		}
	}
}

func (l *Listener) wrap(c net.Conn, place bool) net.Conn {
	conn := &conn{Conn: c, listener: l.index, since: time.Now(), place: place, stays: l.tls != nil, awaits: l.trusted != nil}
	if !conn.stays && !conn.awaits { // its header may be lost where it goes
		l.pool.movable.Add(1)
	}
	l.pool.add(conn)
	if !conn.stays {
		return conn
	}
	_ = l.tls.rotate(conn.since) // without it sessions go on by the keys of another day
	return &secure{tls.Server(conn, l.tls.config), conn}
}

// How long to wait when the kernel has no room for another connection: until some are
// closed. The connection meanwhile waits in the queue, for us or for another worker.
const (
	firstWait = 5 * time.Millisecond
	maxWait   = time.Second
)

// last returns a connection that already waits, or io.EOF. Beyond the limit there is
// no other worker to leave it to: who stops, and does not leave, stops with the service.
func (l *Listener) last() (net.Conn, error) {
	if !l.rest {
		return nil, io.EOF
	}
	c, err := l.acceptNow()
	for err == nil && !l.admits(c) {
		c, err = l.acceptNow()
	}
	if err != nil {
		return nil, io.EOF
	}
	select {
	case l.pool.places <- struct{}{}:
		return l.wrap(c, true), nil
	default:
		return l.wrap(c, false), nil
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
func (l *Listener) Stop() { l.end(true) }

// end makes Accept return io.EOF, with rest only when nothing waits in the kernel.
func (l *Listener) end(rest bool) {
	l.once.Do(func() {
		l.rest = rest
		close(l.stop)
		if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
			_ = d.SetDeadline(past)
		}
	})
}

// await returns when Accept has returned io.EOF: the server has then seen everything
// that it had returned before.
func (l *Listener) await(ctx context.Context) {
	if !l.serving.Load() {
		return
	}
	select {
	case <-l.ended:
	case <-ctx.Done():
	}
}
