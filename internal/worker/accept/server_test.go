package accept

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"preforkd/internal/ipc/handoff"
)

// site is what workers share: a listening socket and a queue.
type site struct {
	ln          net.Listener
	read, write int
}

func newSite(t testing.TB, network string) *site {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{ln: ln}
	if s.read, s.write, err = handoff.Pair(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		unix.Close(s.read)
		unix.Close(s.write)
	})
	return s
}

// queue opens the queue once more, as another process does.
func (s *site) queue(t testing.TB) *handoff.Queue {
	t.Helper()
	var fds [2]int
	for i, fd := range []int{s.read, s.write} {
		var err error
		if fds[i], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			t.Fatal(err)
		}
	}
	q, err := handoff.Open(fds[0], fds[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// testWorker is a real server on a site.
type testWorker struct {
	pool    *Pool
	queue   *handoff.Queue
	server  *fasthttp.Server
	serving sync.WaitGroup
	clocks  context.CancelFunc
	arrived chan struct{} // a request for /wait has begun
	release chan struct{} // closed: requests for /wait are answered
}

// handle answers. Every answer names its worker.
func (w *testWorker) handle(name string, ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set("Worker", name)
	path := string(ctx.Path())
	switch {
	case strings.HasPrefix(path, "/echo/"):
		ctx.SetBodyString(path[len("/echo/"):])
	case path == "/who":
		ctx.SetBodyString(ctx.RemoteAddr().String())
	case path == "/wait":
		w.arrived <- struct{}{}
		select {
		case <-w.release:
		case <-ctx.Done(): // the server shuts down
		}
	case path == "/upgrade":
		ctx.Hijack(func(c net.Conn) {
			w.arrived <- struct{}{}
			buffer := make([]byte, 16)
			n, _ := c.Read(buffer)
			_, _ = c.Write(buffer[:n])
		})
	}
}

func newWorker(name string, o Options, q *handoff.Queue, set func(*fasthttp.Server)) *testWorker {
	if o.Connections == 0 {
		o.Connections = 4096
	}
	if o.Clocks == (Clocks{}) {
		o.Clocks = Clocks{Header: 5 * time.Second, Keepalive: 10 * time.Second, Write: 5 * time.Second}
	}
	w := &testWorker{pool: NewPool(o), queue: q, arrived: make(chan struct{}, 16), release: make(chan struct{})}
	w.server = &fasthttp.Server{
		Handler:         func(ctx *fasthttp.RequestCtx) { w.handle(name, ctx) },
		ConnState:       func(c net.Conn, s fasthttp.ConnState) { w.pool.State(c, State(s)) },
		CloseOnShutdown: true,
	}
	if set != nil {
		set(w.server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.clocks = cancel
	w.serving.Go(func() { w.pool.Run(ctx) })
	return w
}

// serve starts a loop of the server; end waits for it.
func (w *testWorker) serve(ln net.Listener) {
	w.serving.Go(func() { _ = w.server.Serve(ln) })
}

// start starts a worker that takes connections from the queue and, with accepting, from
// the site's socket.
func (s *site) start(t testing.TB, name string, o Options, accepting bool, set ...func(*fasthttp.Server)) *testWorker {
	t.Helper()
	w := newWorker(name, o, s.queue(t), func(server *fasthttp.Server) {
		for _, f := range set {
			f(server)
		}
	})
	if accepting {
		w.serve(w.pool.Listener(s.again(t), 0))
	}
	w.serve(w.pool.Adopter(w.queue, func() bool { return true }))
	t.Cleanup(w.end)
	return w
}

// again returns the site's socket once more, as another process has it.
func (s *site) again(t testing.TB) net.Listener {
	t.Helper()
	raw, err := s.ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ln net.Listener
	e := raw.Control(func(fd uintptr) {
		own := 0
		if own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			ln, err = inherited(own)
		}
	})
	if err = errors.Join(err, e); err != nil {
		t.Fatal(err)
	}
	return ln
}

// inherited makes a listener of a descriptor, which it takes over.
func inherited(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	ln, err := net.FileListener(f)
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln, err
}

// end drains what is left.
func (w *testWorker) end() {
	for _, l := range w.pool.listeners {
		l.Stop()
	}
	for _, a := range w.pool.adopters { // Shutdown knows nothing of one that is not served yet
		a.Stop()
	}
	w.pool.CloseAdopted()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = w.server.ShutdownWithContext(ctx)
	w.clocks()
	w.serving.Wait()
}

// leave is Leave without an end.
func (w *testWorker) leave() (moved, kept int) { return w.pool.Leave(context.Background(), w.queue) }

// eventually waits for what no event tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 5000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("still not: %s", what)
}
