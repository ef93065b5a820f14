package accept

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func TestStatesAreFasthttps(t *testing.T) {
	for ours, theirs := range map[State]fasthttp.ConnState{
		StateNew: fasthttp.StateNew, StateActive: fasthttp.StateActive, StateIdle: fasthttp.StateIdle,
		StateHijacked: fasthttp.StateHijacked, StateClosed: fasthttp.StateClosed,
	} {
		if State(theirs) != ours {
			t.Errorf("%v is %d here", theirs, ours)
		}
	}
}

// wrapped returns a connection of a pool and its client's end.
func wrapped(t testing.TB) (*conn, net.Conn) {
	t.Helper()
	server, client := net.Pipe()
	t.Cleanup(func() { client.Close() })
	p := NewPool(Options{Connections: 1})
	p.movable.Add(1)
	c := &conn{Conn: server}
	p.add(c)
	p.State(c, StateNew)
	t.Cleanup(func() { c.Close() })
	return c, client
}

// TestWakeIsNoTimeout: whoever is woken for nothing waits on, in a request as well as
// before it.
func TestWakeIsNoTimeout(t *testing.T) {
	c, client := wrapped(t)
	for _, state := range []State{StateIdle, StateActive} {
		c.pool.State(c, state)
		got := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			got <- err
		}()
		for range 1000 {
			c.wake()
		}
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Errorf("%v: %v", state, err)
		}
	}
}

// TestCloseWhileReading: as the server's shutdown does.
func TestCloseWhileReading(t *testing.T) {
	c, _ := wrapped(t)
	got := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		got <- err
	}()
	c.Close()
	if err := <-got; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
	if n := c.pool.movable.Load(); n != 0 || c.pool.Open() != 0 {
		t.Errorf("%d movable, %d open", n, c.pool.Open())
	}
}

// endless is a connection that costs nothing, to measure what is around it.
type endless struct{ net.Conn }

func (endless) Read(p []byte) (int, error)  { return len(p), nil }
func (endless) Write(p []byte) (int, error) { return len(p), nil }

// request does what fasthttp does with a connection for each request.
func (c *conn) request(p *Pool, buffer []byte, deadline time.Time) {
	_, _ = c.Read(buffer)
	p.State(c, StateActive)
	_ = c.SetReadDeadline(deadline)
	_, _ = c.Write(buffer)
	p.State(c, StateIdle)
}

func measured() (*conn, *Pool) {
	p := NewPool(Options{Connections: 1})
	c := &conn{Conn: endless{}}
	p.add(c)
	p.State(c, StateNew)
	return c, p
}

func TestRequestsAllocateNothing(t *testing.T) {
	c, p := measured()
	buffer, deadline := make([]byte, 64), time.Now().Add(time.Hour)
	if n := testing.AllocsPerRun(1000, func() { c.request(p, buffer, deadline) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRequest is the cost of the wrapper for one request: a deadline, a read, a
// write, two states.
func BenchmarkRequest(b *testing.B) {
	c, p := measured()
	buffer, deadline := make([]byte, 64), time.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		c.request(p, buffer, deadline)
	}
}
