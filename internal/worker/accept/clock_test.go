package accept

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
)

// clocks are those of the tests in a bubble, where time passes only when all wait.
var clocks = Clocks{Header: 8 * time.Second, Keepalive: 40 * time.Second, Write: 16 * time.Second}

// tick is how often Run looks with these clocks.
const tick = maxTick

// piped runs do in a bubble, with a connection of a pool whose clocks run, and the client's
// end of it.
func piped(t *testing.T, do func(t *testing.T, c *conn, client net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		p := NewPool(Options{Connections: 1, Clocks: clocks})
		ended := make(chan struct{})
		go func() {
			p.Run(t.Context())
			close(ended)
		}()
		t.Cleanup(func() { <-ended })
		synctest.Wait() // Run sleeps: there is nothing to look at
		p.movable.Add(1)
		c := &conn{Conn: server}
		p.add(c)
		p.State(c, StateNew)
		do(t, c, client)
		c.Close()
		client.Close()
	})
}

// lasts fails unless do returns a timeout at most two ticks after limit, and not before.
func lasts(t *testing.T, what string, limit time.Duration, do func() error) {
	t.Helper()
	start := time.Now()
	err := do()
	if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took < limit || took > limit+2*tick {
		t.Errorf("%s: %v after %v, want a timeout after %v", what, err, took, limit)
	}
}

// reads is a Read without its number.
func reads(c *conn) func() error {
	return func() error {
		_, err := c.Read(make([]byte, 8))
		return err
	}
}

func TestEveryWaitHasItsClock(t *testing.T) {
	for name, wait := range map[string]struct {
		limit time.Duration
		enter func(c *conn)
	}{
		"first byte": {clocks.Header, func(*conn) {}},
		"header":     {clocks.Header, func(c *conn) { c.pool.State(c, StateActive) }},
		"keepalive":  {clocks.Keepalive, func(c *conn) { c.pool.State(c, StateActive); c.pool.State(c, StateIdle) }},
		"deadline": {time.Second, func(c *conn) {
			c.pool.State(c, StateActive)
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
		}},
		"body after 100 Continue": {clocks.Write, func(c *conn) {
			c.pool.State(c, StateActive)
			c.clock.turns(answering)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			piped(t, func(t *testing.T, c *conn, _ net.Conn) {
				wait.enter(c)
				lasts(t, name, wait.limit, reads(c))
			})
		})
	}
	t.Run("write", func(t *testing.T) {
		piped(t, func(t *testing.T, c *conn, _ net.Conn) {
			c.pool.State(c, StateActive)
			lasts(t, "write", clocks.Write, func() error {
				_, err := c.Write([]byte("nobody reads"))
				return err
			})
		})
	})
	t.Run("none after the end of a deadline", func(t *testing.T) {
		piped(t, func(t *testing.T, c *conn, client net.Conn) {
			_ = c.SetReadDeadline(time.Time{})
			go func() {
				time.Sleep(time.Hour)
				_, _ = client.Write([]byte("x"))
			}()
			if err := reads(c)(); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestASlowHandlerIsNoTimeout: clocks that run out while nobody reads or writes cost the
// next call nothing.
func TestASlowHandlerIsNoTimeout(t *testing.T) {
	piped(t, func(t *testing.T, c *conn, client net.Conn) {
		for range 3 {
			c.pool.State(c, StateActive)
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			time.Sleep(time.Hour) // the handler
			go func() {
				buffer := make([]byte, 64)
				time.Sleep(clocks.Write / 2)
				n, err := client.Read(buffer)
				if string(buffer[:n]) != "an answer" || err != nil {
					t.Errorf("the client read %q, %v", buffer[:n], err)
				}
				time.Sleep(clocks.Keepalive / 2)
				_, _ = client.Write([]byte("x"))
			}()
			if n, err := c.Write([]byte("an answer")); n != 9 || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			time.Sleep(time.Hour) // between the last byte and the next turn
			c.pool.State(c, StateIdle)
			if err := reads(c)(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestAWriteGoesOnAfterAStaleInterrupt: what an interrupt of an earlier turn cuts short
// is completed.
func TestAWriteGoesOnAfterAStaleInterrupt(t *testing.T) {
	piped(t, func(t *testing.T, c *conn, client net.Conn) {
		const text = "a long answer in two pieces"
		got := make(chan string)
		go func() {
			buffer := make([]byte, len(text))
			n, _ := client.Read(buffer[:4])
			c.broken.mu.Lock() // as an interrupt that came while the turn changed
			c.broken.writing = true
			_ = c.Conn.SetWriteDeadline(past)
			c.broken.mu.Unlock()
			time.Sleep(time.Second)
			more, _ := io.ReadFull(client, buffer[n:])
			got <- string(buffer[:n+more])
		}()
		if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		if s := <-got; s != text {
			t.Errorf("the client read %q", s)
		}
	})
}

// TestClocksOfAServer: slow clients of a real server get an error, or an end.
func TestClocksOfAServer(t *testing.T) {
	s := newSite(t, "tcp")
	limits := Clocks{Header: 40 * time.Millisecond, Keepalive: 160 * time.Millisecond, Write: 80 * time.Millisecond}
	w := s.start(t, "w", Options{Clocks: limits}, true, func(server *fasthttp.Server) {
		server.HeaderReceived = func(*fasthttp.RequestHeader) fasthttp.RequestConfig {
			return fasthttp.RequestConfig{ReadTimeout: 80 * time.Millisecond}
		}
		server.Handler = func(ctx *fasthttp.RequestCtx) { ctx.SetBody(make([]byte, 32<<20)) }
	})
	t.Run("header and body", func(t *testing.T) {
		for _, text := range []string{"GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"} {
			c := connect(t, s.ln.Addr())
			if err := c.send(text); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c.r); err != nil || !strings.Contains(string(b), " 40") {
				t.Errorf("%q: %q, %v", text, b, err)
			}
		}
	})
	t.Run("answer", func(t *testing.T) {
		c := connect(t, s.ln.Addr())
		if err := c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		one := make([]byte, 1)
		if _, err := io.ReadFull(c.r, one); err != nil {
			t.Fatal(err)
		}
		eventually(t, "closed by the server", func() bool { return w.pool.Open() == 0 })
		if n, err := io.Copy(io.Discard, c.r); err == nil && n == 32<<20 {
			t.Error("all of the answer arrived")
		}
	})
}
