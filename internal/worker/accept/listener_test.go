package accept

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func dial(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type accepted struct {
	conn net.Conn
	err  error
}

func acceptAsync(l *Listener) <-chan accepted {
	got := make(chan accepted, 1)
	go func() {
		c, err := l.Accept()
		got <- accepted{c, err}
	}()
	return got
}

func TestLimitLeavesConnectionsInTheQueue(t *testing.T) {
	ln := listen(t)
	pool := NewPool(Options{Connections: 2})
	l := pool.Listener(ln, 0)
	for range 3 {
		dial(t, ln)
	}
	var conns []net.Conn
	for range 2 {
		a := <-acceptAsync(l)
		if a.err != nil {
			t.Fatal(a.err)
		}
		conns = append(conns, a.conn)
	}
	third := acceptAsync(l)
	select {
	case a := <-third:
		t.Fatalf("a third connection beyond the limit: %v", a.err)
	default:
	}
	conns[0].Close()
	conns[0].Close() // gives back one place, not two
	if a := <-third; a.err != nil {
		t.Fatal(a.err)
	}
	if pool.Open() != 2 {
		t.Errorf("%d open", pool.Open())
	}
}

// TestStopServesWhatTheKernelAccepted: connections that wait in the queue when the
// listener stops are handed out before the end.
func TestStopServesWhatTheKernelAccepted(t *testing.T) {
	for _, n := range []int{0, 1, 5} {
		ln := listen(t)
		pool := NewPool(Options{Connections: 3}) // less than 5: the last ones come all the same
		l := pool.Listener(ln, 0)
		waiting := acceptAsync(l)
		first := dial(t, ln)
		if a := <-waiting; a.err != nil {
			t.Fatal(a.err)
		}
		var clients []net.Conn
		for range n {
			clients = append(clients, dial(t, ln))
		}
		l.Stop()
		for i := range n {
			a := <-acceptAsync(l)
			if a.err != nil {
				t.Fatalf("connection %d of %d: %v", i+1, n, a.err)
			}
			a.conn.Close()
		}
		if a := <-acceptAsync(l); !errors.Is(a.err, io.EOF) {
			t.Errorf("after the last: %v", a.err)
		}
		for _, c := range clients { // closed in order, not reset
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("client: %v", err)
			}
		}
		first.Close()
	}
}

func TestStopWakesWaiters(t *testing.T) {
	l := NewPool(Options{Connections: 1}).Listener(listen(t), 0)
	waiting := acceptAsync(l)
	l.Stop()
	l.Stop()
	if a := <-waiting; !errors.Is(a.err, io.EOF) {
		t.Errorf("waiting for a connection: %v", a.err)
	}
	full := NewPool(Options{Connections: 0}).Listener(listen(t), 0)
	waiting = acceptAsync(full)
	full.Stop()
	if a := <-waiting; !errors.Is(a.err, io.EOF) {
		t.Errorf("waiting for room: %v", a.err)
	}
}

// failing fails some times before it accepts.
type failing struct {
	net.Listener
	mu   sync.Mutex // guards errs
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) == 0 {
		return f.Listener.Accept()
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

func TestPassingErrorsAreWaitedOut(t *testing.T) {
	ln := listen(t)
	l := NewPool(Options{Connections: 1}).Listener(&failing{Listener: ln, errs: []error{unix.EMFILE, unix.ENFILE}}, 0)
	dial(t, ln)
	start := time.Now()
	a := <-acceptAsync(l)
	if a.err != nil || time.Since(start) < firstWait {
		t.Errorf("%v", a.err)
	}
	a.conn.Close()
	l = NewPool(Options{Connections: 1}).Listener(&failing{Listener: ln, errs: []error{unix.EBADF}}, 0)
	if a := <-acceptAsync(l); !errors.Is(a.err, unix.EBADF) {
		t.Errorf("%v", a.err)
	}
	if len(l.pool.places) != 0 {
		t.Error("a failed accept keeps its place")
	}
}
