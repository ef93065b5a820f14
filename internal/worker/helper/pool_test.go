package helper

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/testkit"
)

// room is a scoreboard, and the sockets of helpers.
type room struct {
	t     testing.TB
	board *scoreboard.Board
	dir   string
	pids  int
}

func newRoom(t testing.TB) *room {
	board, fd, err := scoreboard.Create(8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = board.Close(); activation.Close(fd) })
	return &room{t: t, board: board, dir: t.TempDir(), pids: 1000}
}

func (r *room) socket(row *scoreboard.Row) string {
	return filepath.Join(r.dir, ipc.HelperSocket(row.Generation(), row.Ticket(), "decode"))
}

// helper adds a helper of generation gen, whose connections are served by serve.
func (r *room) helper(gen uint64, serve func(net.Conn)) *scoreboard.Row {
	r.pids++
	row, err := r.board.Claim(scoreboard.Holder{Pool: 1, Slot: r.pids - 1001, Generation: gen, State: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	ln, err := net.Listen("unix", r.socket(row))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	row.SetPID(r.pids)
	row.SetState(ipc.StateReady)
	return row
}

func (r *room) pool(change func(*Options)) *Pool {
	o := Options{
		Name: "decode", Rows: r.board.Rows, Ready: ipc.StateReady, Generation: 2, Socket: r.socket,
		Connections: 1, MaxWaiting: 2, MaxWait: testkit.Limit, MaxAnswer: 1000,
	}
	if change != nil {
		change(&o)
	}
	return New(o)
}

// echo answers each request with who it is.
func echo(name string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			text := name + " " + req.Method + " " + req.URL.Path + " " + req.Header.Get(headerLength)
			body := make([]byte, max(req.ContentLength, 0))
			if _, err := io.ReadFull(req.Body, body); err != nil {
				return
			}
			text += " " + string(body)
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text); err != nil {
				return
			}
		}
	}
}

func await(t *testing.T, cond func() bool) {
	t.Helper()
	if err := testkit.Await(cond); err != nil {
		t.Fatal(err)
	}
}

// pair is a connection, as a client has it and as a worker.
func pair(t *testing.T) (client, server net.Conn) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("unix", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

// says answers every connection with text, and closes it.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte(text))
		_ = c.Close()
	}
}

func take(t *testing.T, p *Pool) *Conn {
	t.Helper()
	c, err := p.Take(time.Now().Add(testkit.Limit), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, c *Conn) string {
	t.Helper()
	var a Answer
	if err := c.Ask(&Request{Path: "/v2/models/m/infer", JSON: 2, Body: []byte("{}"), More: []byte("more"), Until: time.Now().Add(testkit.Limit)}, &a); err != nil {
		t.Fatal(err)
	}
	return string(a.Body())
}

// TestPick: a request goes to the helper of this generation with the fewest, each has as many as it
// may, whoever is not ready gets none, and connections are kept.
func TestPick(t *testing.T) {
	r := newRoom(t)
	r.helper(1, echo("old"))
	a := r.helper(2, echo("a"))
	b := r.helper(2, echo("b"))
	var served atomic.Int64
	p := r.pool(func(o *Options) { o.Served = func(ok bool, _ time.Duration) { served.Add(1) } })
	one, two := take(t, p), take(t, p)
	if got := ask(t, one); got != "a POST /v2/models/m/infer 2 {}more" {
		t.Errorf("%q", got)
	}
	if got := ask(t, two); !strings.HasPrefix(got, "b POST") {
		t.Errorf("%q", got)
	}
	if _, err := p.Take(time.Now().Add(time.Millisecond), nil); !errors.Is(err, ErrLate) {
		t.Errorf("both are busy: %v", err)
	}
	p.Release(one)
	if again := take(t, p); again != one {
		t.Error("the connection was not kept")
	}
	p.Release(one)
	p.Release(two)
	a.SetState(4) // it drains: from now on it gets nothing
	three := take(t, p)
	if got := ask(t, three); !strings.HasPrefix(got, "b ") {
		t.Errorf("%q", got)
	}
	p.Release(three)
	b.SetState(4)
	four := take(t, p) // of another generation, rather than nobody
	if got := ask(t, four); !strings.HasPrefix(got, "old ") {
		t.Errorf("%q", got)
	}
	p.Release(four)
	if n := b.Helped.Load(); n != 2 || served.Load() != 4 {
		t.Errorf("%d requests at b, %d in all", n, served.Load())
	}
	if four.Met("m") {
		t.Error("met before Meet")
	}
	if four.Meet("m"); !four.Met("m") || four.Met("n") {
		t.Error("not met")
	}
}

// TestWait: who waits is served in order, and refused, told and forgotten where it must be.
func TestWait(t *testing.T) {
	r := newRoom(t)
	p := r.pool(func(o *Options) { o.MaxWait = 50 * time.Millisecond })
	if _, err := p.Take(time.Time{}, nil); !errors.Is(err, ErrNone) {
		t.Errorf("without helpers: %v", err)
	}
	r.helper(2, echo("a"))
	c := take(t, p)
	if _, err := p.Take(time.Time{}, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("a busy helper: %v", err)
	}
	client, server := pair(t)
	_ = client.Close()
	if _, err := p.Take(time.Time{}, server); !errors.Is(err, ErrGone) {
		t.Errorf("a client that has gone: %v", err)
	}
	p.Release(c)

	var running, waiting atomic.Int64
	p = r.pool(func(o *Options) {
		o.Observe = func(a, b int) { running.Add(int64(a)); waiting.Add(int64(b)) }
	})
	c = take(t, p)
	order := make(chan int, 2)
	for i := range 2 {
		go func() {
			c, err := p.Take(time.Time{}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			p.Release(c)
		}()
		await(t, func() bool { return waiting.Load() == int64(i+1) })
	}
	if _, err := p.Take(time.Time{}, nil); !errors.Is(err, ErrFull) {
		t.Errorf("two wait: %v", err)
	}
	p.Release(c)
	if a, b := <-order, <-order; a != 0 || b != 1 {
		t.Errorf("served %d, then %d", a, b)
	}
	await(t, func() bool { return running.Load() == 0 && waiting.Load() == 0 })
}

// TestDown: a helper that cannot be reached is passed over, and found again.
func TestDown(t *testing.T) {
	r := newRoom(t)
	down := r.helper(2, echo("down"))
	r.helper(2, echo("up"))
	p := r.pool(nil)
	if err := os.Remove(r.socket(down)); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", r.socket(down))
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = ln.Close()
	for range 3 {
		c := take(t, p)
		if got := ask(t, c); !strings.HasPrefix(got, "up ") {
			t.Errorf("%q", got)
		}
		p.Release(c)
	}
}

// TestBroken: what goes wrong at a helper is named, with the helper, and its connection is not used
// again.
func TestBroken(t *testing.T) {
	for text, want := range map[string]string{
		"": "closed the connection before its answer was complete",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf":                    "closed the connection before its answer was complete",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf":      "closed the connection before its answer was complete",
		"HTTP/1.1 200 OK\r\nContent-Le":                                       "closed the connection before its answer was complete",
		"what do you want?\r\n\r\n":                                           "its answer is no HTTP",
		"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n":                     "larger than 1000 bytes",
		"HTTP/1.1 200 OK\r\n\r\nno length":                                    "neither Content-Length nor chunks",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 10_000) + "\r\n\r\n":   "its answer is no HTTP",
		"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n":                        "its answer is no HTTP",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n": "its answer is no HTTP",
	} {
		r := newRoom(t)
		r.helper(2, says(text))
		p := r.pool(nil)
		c := take(t, p)
		var a Answer
		err := c.Ask(&Request{Path: "/", Until: time.Now().Add(testkit.Limit)}, &a)
		if !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "helper decode (slot 0, pid 1001)") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		p.Release(c)
		if again := take(t, p); again == c {
			t.Errorf("%q: its connection is used again", text)
		}
	}
}

// TestClosed: a helper that says with an answer that it closes the connection is not asked on that again.
func TestClosed(t *testing.T) {
	r := newRoom(t)
	r.helper(2, says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"))
	p := r.pool(nil)
	c := take(t, p)
	if c.Closed() {
		t.Error("closed before anybody asked")
	}
	if got := ask(t, c); got != "{}" || !c.Closed() {
		t.Errorf("%q, closed %v", got, c.Closed())
	}
	var a Answer
	if err := c.Ask(&Request{Path: "/"}, &a); !errors.Is(err, ErrBroken) {
		t.Errorf("%v", err)
	}
	p.Release(c)
	if got := ask(t, take(t, p)); got != "{}" {
		t.Errorf("%q", got)
	}
}

// TestLate: a helper that is silent holds a request until its time is over.
func TestLate(t *testing.T) {
	r := newRoom(t)
	r.helper(2, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	p := r.pool(nil)
	c := take(t, p)
	var a Answer
	err := c.Ask(&Request{Path: "/", Body: make([]byte, 1<<20), Until: time.Now().Add(10 * time.Millisecond)}, &a)
	if !errors.Is(err, ErrLate) {
		t.Errorf("%v", err)
	}
	p.Release(c)
}

// TestRefuses: a helper may answer before it has read the body.
func TestRefuses(t *testing.T) {
	r := newRoom(t)
	r.helper(2, func(c net.Conn) {
		_, _ = c.Write([]byte("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"))
		_ = c.Close()
	})
	p := r.pool(nil)
	c := take(t, p)
	var a Answer
	err := c.Ask(&Request{Path: "/", Body: make([]byte, 4<<20), Until: time.Now().Add(testkit.Limit)}, &a)
	// What the kernel has thrown away with the connection is lost; then that is said.
	if err == nil && (a.Status() != 413 || string(a.Body()) != "no") || err != nil && !errors.Is(err, ErrBroken) {
		t.Errorf("%d %q %v", a.Status(), a.Body(), err)
	}
	p.Release(c)
}

// FuzzReadAnswer: whatever a helper sends is an answer of no more bytes than may be, or an error.
func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + headerLength + ": 1\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 \r\n\r\n"))
	var a Answer
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReaderSize(strings.NewReader(string(data)), bufferBytes)
		if err := readAnswer(in, 1000, &a); err != nil {
			return
		}
		if len(a.Body()) > 1000 || a.Status() < 200 || a.Status() > 599 {
			t.Errorf("%d, %d bytes", a.Status(), len(a.Body()))
		}
		if n, err := a.JSON(); err == nil && n > len(a.Body()) {
			t.Errorf("%d of %d", n, len(a.Body()))
		}
	})
}
