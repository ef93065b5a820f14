package accept

import (
	"net"
	"testing"
	"time"
)

// TestCutIsForRequests: only a connection whose request is being answered, and whose
// answers before have all been sent, can be cut, and only once.
func TestCutIsForRequests(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s := newSite(t, network)
			p := NewPool(Options{Connections: 2})
			client := connect(t, s.ln.Addr())
			c, err := p.Listener(s.ln, 0).Accept()
			if err != nil {
				t.Fatal(err)
			}
			no := func(when string) {
				t.Helper()
				if _, ok := Cut(c); ok {
					t.Fatalf("%s: it can be cut", when)
				}
			}
			no("before the server has seen it")
			p.State(c, StateNew)
			no("between two requests")
			if err := client.send("GET"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			p.State(c, StateActive)
			p.State(c, StateIdle)
			p.State(c, StateActive) // without a Read: the request was in the server's buffer, perhaps the answer still is
			no("behind another request")
			p.State(c, StateIdle)
			if err := client.send("GET"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			p.State(c, StateActive)
			end, ok := Cut(c)
			if !ok || p.Open() != 1 || p.Counts().Busy != 0 {
				t.Fatalf("cut: %v, %+v", ok, p.Counts())
			}
			no("again")
			end([]byte("HTTP/1.1 504 Late\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate"))
			if a, err := client.receive(); err != nil || a.status != 504 || a.body != "late" {
				t.Errorf("%+v, %v", a, err)
			}
			if _, err := client.r.ReadByte(); err == nil {
				t.Error("the connection goes on")
			}
			if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\n")); err == nil {
				t.Error("the server writes on")
			}
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the server reads on")
			}
			p.State(c, StateIdle)
			if n := p.Open(); n != 0 || p.movable.Load() != 0 {
				t.Errorf("%d connections in the pool, %d to give away", n, p.movable.Load())
			}
			if err := c.Close(); err != nil || p.movable.Load() != 0 {
				t.Errorf("close: %v, %d to give away", err, p.movable.Load())
			}
		})
	}
	if _, ok := Cut(&net.TCPConn{}); ok {
		t.Error("a connection of nobody's was cut")
	}
}

// TestCutOfAClientThatDoesNotRead takes no longer than it may.
func TestCutOfAClientThatDoesNotRead(t *testing.T) {
	ours, theirs := net.Pipe() // has no buffer
	defer theirs.Close()
	p := NewPool(Options{Connections: 1})
	c := &conn{Conn: ours, flushed: true}
	p.movable.Add(1)
	p.add(c)
	c.state.Store(busy)
	end, ok := Cut(c)
	if !ok {
		t.Fatal("not cut")
	}
	done := make(chan struct{})
	go func() {
		end([]byte("late"))
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it waits for the client")
	}
	if p.Open() != 0 {
		t.Error("it is still in the pool")
	}
}
