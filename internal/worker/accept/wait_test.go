package accept

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// semaphore are permits in the simplest way.
type semaphore chan struct{}

func newSemaphore(n int) semaphore {
	s := make(semaphore, n)
	for range n {
		s <- struct{}{}
	}
	return s
}

func (s semaphore) Take() (int, bool) {
	select {
	case <-s:
		return 0, true
	default:
		return 0, false
	}
}

func (s semaphore) Stand(stop <-chan struct{}) (int, bool) {
	select {
	case <-s:
		return 0, true
	case <-stop:
		return 0, false
	}
}

func (s semaphore) Release(int) { s <- struct{}{} }

// counter is workers that have a queue in common.
type counter struct {
	*site
	wait *site // of the queue
	puts atomic.Uint64
}

func newCounter(t testing.TB, network string) *counter {
	return &counter{site: newSite(t, network), wait: newSite(t, network)}
}

// clerk is one of the workers: it runs requests below /run/ with a permit.
type clerk struct {
	*testWorker
	permits semaphore

	mu  sync.Mutex
	ran []string // paths, in the order in which they had a permit
}

// clerk starts one with n permits.
func (c *counter) clerk(t testing.TB, name string, n int, o Options, accepting bool, set ...func(*Wait)) *clerk {
	t.Helper()
	k := &clerk{permits: newSemaphore(n)}
	k.testWorker = newWorker(name, o, c.queue(t), func(s *fasthttp.Server) {
		s.Handler = func(ctx *fasthttp.RequestCtx) { k.run(name, ctx) }
		s.MaxRequestBodySize = 2 * mostUnread()
	})
	w := Wait{Queue: c.wait.queue(t), Permits: k.permits, Computes: computes, Look: look, Admits: func(Head) error { return nil }, Puts: &c.puts}
	for _, f := range set {
		f(&w)
	}
	taker, sweeper := k.pool.Share(w)
	if accepting {
		k.serve(k.pool.Listener(c.again(t), 0))
	}
	k.serve(taker)
	k.serve(sweeper)
	k.serve(k.pool.Adopter(k.testWorker.queue, func() bool { return true }))
	t.Cleanup(func() {
		taker.Stop()
		k.end()
	})
	return k
}

func (k *clerk) run(name string, ctx *fasthttp.RequestCtx) {
	if !computes([]byte(ctx.Request.Header.String())) {
		k.handle(name, ctx)
		return
	}
	ctx.Response.Header.Set("Worker", name)
	a := Arrived(ctx.Conn())
	if a.Refused != nil {
		ctx.SetStatusCode(503)
		return
	}
	if a.Queued && a.Permit < 0 {
		ctx.SetStatusCode(504)
		return
	}
	if a.Permit < 0 {
		<-k.permits
	}
	defer k.permits.Release(0)
	k.mu.Lock()
	k.ran = append(k.ran, string(ctx.Path()))
	k.mu.Unlock()
	fmt.Fprintf(ctx, "%d queued=%v", len(ctx.Request.Body()), a.Queued)
}

func computes(b []byte) bool { return bytes.HasPrefix(b, []byte("POST /run/")) }

func look(b []byte) (Head, bool) {
	head, _, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return Head{}, !bytes.HasPrefix([]byte("POST /run/"), b[:min(len(b), 10)])
	}
	h := Head{Computes: computes(b), Limit: time.Minute}
	if _, n, ok := bytes.Cut(head, []byte("Content-Length: ")); ok {
		n, _, _ = bytes.Cut(n, []byte("\r\n"))
		size, _ := strconv.Atoi(string(n))
		h.Size = len(head) + 4 + size
	}
	return h, true
}

func posted(path string, body int) string {
	return fmt.Sprintf("POST /run/%s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", path, body, strings.Repeat("x", body))
}

// ask sends a request and demands who answers, and what.
func (c *client) ask(t testing.TB, text, worker, body string) {
	t.Helper()
	if err := c.send(text); err != nil {
		t.Fatal(err)
	}
	c.gets(t, worker, body)
}

func (c *client) gets(t testing.TB, worker, body string) {
	t.Helper()
	if a, err := c.receive(); err != nil || a.status != 200 || a.worker != worker || a.body != body {
		t.Fatalf("%+v, %v; want %q by %s", a, err, body, worker)
	}
}

// TestReadWhereAPermitIsFree: with a permit free nothing moves, and afterwards it is free again,
// whatever was asked for.
func TestReadWhereAPermitIsFree(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		c := newCounter(t, network)
		a := c.clerk(t, "a", 1, Options{}, true)
		cl := connect(t, c.ln.Addr())
		for i := range 50 {
			cl.ask(t, posted("x", 10), "a", "10 queued=false")
			cl.ask(t, request("/echo/y"), "a", "y")
			cl.ask(t, posted("x", 300_000*(i%2)), "a", fmt.Sprintf("%d queued=false", 300_000*(i%2)))
		}
		if err := cl.send("POST /run/ HTTP/1.1\r\nnonsense\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := cl.receive(); err != nil || got.status != 400 {
			t.Errorf("%+v, %v", got, err)
		}
		eventually(t, "the permit is free", func() bool { return len(a.permits) == 1 })
		if n := a.pool.Counts(); n.Queued != 0 || n.Taken != 0 {
			t.Errorf("%s: %+v", network, n)
		}
	}
}

// TestWaitsForAnyWorker: a request at a worker that is busy is answered by another, which has the
// connection from then on. All else is answered where it is.
func TestWaitsForAnyWorker(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		c := newCounter(t, network)
		a := c.clerk(t, "a", 1, Options{}, true)
		cl, other := connect(t, c.ln.Addr()), connect(t, c.ln.Addr())
		cl.ask(t, posted("x", 10), "a", "10 queued=false")
		other.ask(t, request("/echo/y"), "a", "y")
		<-a.permits
		b := c.clerk(t, "b", 1, Options{}, false)
		other.ask(t, request("/echo/y"), "a", "y")
		cl.ask(t, posted("x", 40_000), "b", "40000 queued=true")
		cl.ask(t, posted("x", 10), "b", "10 queued=false")
		cl.ask(t, request("/echo/y"), "b", "y")
		a.permits.Release(0)
		moved := uint64(1)
		eventually(t, "a request is read where a permit is free", func() bool {
			cl := connect(t, c.ln.Addr())
			if err := cl.send(posted("x", 10)); err != nil {
				t.Fatal(err)
			}
			if got, err := cl.receive(); err != nil || got.worker == "b" { // its taker has the permit for a moment
				moved++
				return false
			}
			return true
		})
		other.ask(t, request("/echo/y"), "a", "y")
		if n := b.pool.Counts(); n.Taken != moved || n.Queued != 0 {
			t.Errorf("%s: %+v, %d moved", network, n, moved)
		}
	}
}

// TestFirstComeFirstServed: requests are run in the order in which they came, whichever worker they came to.
func TestFirstComeFirstServed(t *testing.T) {
	c := newCounter(t, "tcp")
	a, b := c.clerk(t, "a", 1, Options{}, true), c.clerk(t, "b", 1, Options{}, true)
	<-a.permits
	<-b.permits
	var all []*client
	var want []string
	for i := range 50 {
		cl := connect(t, c.ln.Addr())
		if err := cl.send(posted(strconv.Itoa(i), 10)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is in the queue", func() bool { return a.pool.waits.Queue.Depth() == i+1 })
		all, want = append(all, cl), append(want, fmt.Sprintf("/run/%d", i))
	}
	b.permits.Release(0)
	for _, cl := range all {
		cl.gets(t, "b", "10 queued=true")
	}
	if !slices.Equal(b.ran, want) {
		t.Errorf("%q", b.ran)
	}
	a.permits.Release(0)
}

// TestMovesWhenItIsWhole: of a request that comes in parts nothing is read while no permit is free, and
// it moves when all of it is in the kernel.
func TestMovesWhenItIsWhole(t *testing.T) {
	for network, size := range map[string]int{"tcp": 2_000_000, "unix": 50_000} {
		c := newCounter(t, network)
		a := c.clerk(t, "a", 1, Options{}, true)
		<-a.permits
		b := c.clerk(t, "b", 1, Options{}, false)
		whole := posted("x", size)
		cl := connect(t, c.ln.Addr())
		for i, part := range []string{whole[:1], whole[1:30], whole[30:70], whole[70:4000], whole[4000 : size/2]} {
			if err := cl.send(part); err != nil {
				t.Fatal(err)
			}
			eventually(t, fmt.Sprintf("part %d is seen", i), func() bool { return a.pool.waits.half.Load() == 1 })
		}
		if n := a.pool.Counts(); n.Queued != 0 || n.Idle != 1 {
			t.Errorf("%s: %+v", network, n)
		}
		cl.ask(t, whole[size/2:], "b", fmt.Sprintf("%d queued=true", size))
		cl.ask(t, posted("x", 10), "b", "10 queued=false")
		eventually(t, "no request is half here", func() bool { return a.pool.waits.half.Load() == 0 })
		_ = b
	}
}

// TestTooLargeToMove: what the kernel cannot hold is read and waits here.
func TestTooLargeToMove(t *testing.T) {
	for network, size := range map[string]int{"tcp": mostUnread() + 1, "unix": mostLocal + 1} {
		c := newCounter(t, network)
		a := c.clerk(t, "a", 1, Options{}, true)
		<-a.permits
		c.clerk(t, "b", 1, Options{}, false)
		cl := connect(t, c.ln.Addr())
		if err := cl.send(posted("x", size)); err != nil { // returns when it has been read
			t.Fatal(err)
		}
		a.permits.Release(0)
		cl.gets(t, "a", fmt.Sprintf("%d queued=false", size))
	}
}

// TestSlowWhileNobodyReads: a client that sends part of a request gets 408 when its time is over, also
// while nothing of it has been read.
func TestSlowWhileNobodyReads(t *testing.T) {
	c := newCounter(t, "tcp")
	a := c.clerk(t, "a", 1, Options{Clocks: Clocks{Header: 150 * time.Millisecond, Keepalive: time.Minute}}, true,
		func(w *Wait) { w.BodyTime = 200 * time.Millisecond })
	<-a.permits
	whole := posted("x", 10_000)
	for _, part := range []int{1, 30, len(whole) - 9_999, len(whole) - 1} {
		cl := connect(t, c.ln.Addr())
		cl.ask(t, request("/echo/y"), "a", "y")
		if err := cl.send(whole[:part]); err != nil {
			t.Fatal(err)
		}
		if got, err := cl.receive(); err != nil || got.status != 408 && got.status != 400 {
			t.Errorf("%d bytes: %+v, %v", part, got, err)
		}
	}
	gone := connect(t, c.ln.Addr())
	if err := gone.send(whole[:len(whole)-1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is seen", func() bool { return a.pool.waits.half.Load() == 1 })
	gone.Close()
	eventually(t, "it is gone", func() bool { return a.pool.Open() == 0 && a.pool.waits.half.Load() == 0 })
}

// TestFullWait: what the queue has no room for waits in its worker, and all are answered.
func TestFullWait(t *testing.T) {
	c := newCounter(t, "tcp")
	if err := unix.SetsockoptInt(c.wait.write, unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	a := c.clerk(t, "a", 1, Options{}, true)
	<-a.permits
	var all []*client
	for range 40 {
		cl := connect(t, c.ln.Addr())
		if err := cl.send(posted("x", 10)); err != nil {
			t.Fatal(err)
		}
		all = append(all, cl)
	}
	eventually(t, "all are seen", func() bool { n := a.pool.Counts(); return n.Queued+n.Unqueued == 40 && n.Unqueued > 0 && n.Queued > 0 })
	a.permits.Release(0)
	for _, cl := range all {
		if got, err := cl.receive(); err != nil || got.status != 200 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if n := a.pool.Counts(); n.Taken != n.Queued {
		t.Errorf("%+v", n)
	}
}

// TestRefusedBeforeItWaits: what may not wait in the queue is read and answered.
func TestRefusedBeforeItWaits(t *testing.T) {
	c := newCounter(t, "tcp")
	a := c.clerk(t, "a", 1, Options{}, true, func(w *Wait) { w.Admits = func(Head) error { return errors.New("no") } })
	<-a.permits
	cl := connect(t, c.ln.Addr())
	for range 3 {
		if err := cl.send(posted("x", 10)); err != nil {
			t.Fatal(err)
		}
		if got, err := cl.receive(); err != nil || got.status != 503 || got.close {
			t.Errorf("%+v, %v", got, err)
		}
	}
	a.permits.Release(0)
	cl.ask(t, posted("x", 10), "a", "10 queued=false")
}

// TestSweeper: while all are busy the first in the queue is taken without a permit when its time is over or
// its client has gone; nobody else is.
func TestSweeper(t *testing.T) {
	c := newCounter(t, "tcp")
	var limit atomic.Int64
	a := c.clerk(t, "a", 1, Options{}, true, func(w *Wait) {
		w.Look = func(b []byte) (Head, bool) {
			h, ok := look(b)
			h.Limit = time.Duration(limit.Load())
			return h, ok
		}
	})
	<-a.permits
	send := func(d time.Duration, queued uint64) *client {
		limit.Store(int64(d))
		cl := connect(t, c.ln.Addr())
		if err := cl.send(posted("x", 10)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is in the queue", func() bool { return a.pool.Counts().Queued == queued })
		return cl
	}
	gone, late, patient := send(0, 1), send(50*time.Millisecond, 2), send(0, 3)
	gone.Close()
	if got, err := late.receive(); err != nil || got.status != 504 {
		t.Errorf("%+v, %v", got, err)
	}
	if n := a.pool.waits.Queue.Depth(); n != 1 {
		t.Errorf("%d wait", n)
	}
	a.permits.Release(0)
	patient.gets(t, "a", "10 queued=true")
}

// TestStopAnswersWhatWaits: a service that stops answers those in the queue; one that leaves while
// others stay leaves them to these.
func TestStopAnswersWhatWaits(t *testing.T) {
	c := newCounter(t, "tcp")
	a := c.clerk(t, "a", 1, Options{}, true)
	<-a.permits
	var all []*client
	for range 5 {
		cl := connect(t, c.ln.Addr())
		if err := cl.send(posted("x", 10)); err != nil {
			t.Fatal(err)
		}
		all = append(all, cl)
	}
	eventually(t, "they wait", func() bool { return a.pool.waits.Queue.Depth() == 5 })
	b := c.clerk(t, "b", 1, Options{}, false)
	all[0].gets(t, "b", "10 queued=true")
	for _, cl := range all[1:] {
		cl.gets(t, "b", "10 queued=true")
	}
	<-b.permits
	for _, cl := range all {
		if err := cl.send(posted("x", 10)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they wait again", func() bool { return b.pool.waits.Queue.Depth() == 5 })
	a.pool.takers[0].End()
	b.pool.takers[0].Stop()
	b.permits.Release(0)
	for _, cl := range all {
		cl.gets(t, "b", "10 queued=true")
	}
}

// TestHandedOverInParts: a worker that leaves while part of a request has come passes it on unread.
func TestHandedOverInParts(t *testing.T) {
	c := newCounter(t, "tcp")
	a := c.clerk(t, "a", 1, Options{}, true)
	<-a.permits
	whole := posted("x", 100_000)
	cl := connect(t, c.ln.Addr())
	if err := cl.send(whole[:50_000]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is seen", func() bool { return a.pool.waits.half.Load() == 1 })
	c.clerk(t, "b", 1, Options{}, true)
	if moved, kept := a.leave(); moved != 1 || kept != 0 {
		t.Errorf("%d moved, %d kept", moved, kept)
	}
	cl.ask(t, whole[50_000:], "b", "100000 queued=false")
}

// TestWaitAllocates: a request that is read at once costs no allocation more than without the queue.
func TestWaitAllocates(t *testing.T) {
	c := newCounter(t, "tcp")
	a := newWorker("a", Options{}, c.queue(t), nil)
	defer func() { a.clocks(); a.serving.Wait() }()
	a.pool.Share(Wait{Queue: c.wait.queue(t), Permits: newSemaphore(1), Computes: computes, Look: look, Puts: &c.puts})
	l := a.pool.Listener(c.again(t), 0)
	defer l.Close()
	cl := connect(t, c.ln.Addr())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a.pool.State(conn, StateNew)
	text, buffer := []byte(posted("x", 10)), make([]byte, 4096)
	n := testing.AllocsPerRun(200, func() {
		if _, err := cl.Write(text); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(buffer); err != nil || n != len(text) {
			t.Fatal(n, err)
		}
		a.pool.State(conn, StateActive)
		a.pool.State(conn, StateIdle)
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}
