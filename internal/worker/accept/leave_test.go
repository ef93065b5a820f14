package accept

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc/handoff"
)

var networks = []string{"tcp", "unix"}

// TestLeaveMovesIdleConnections: used and unused ones, with what the client sent
// meanwhile; the taker's answer is the client's next.
func TestLeaveMovesIdleConnections(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			s := newSite(t, network)
			old := s.start(t, "old", Options{Generation: 7}, true)
			var clients []*client
			for i := range 20 {
				c := connect(t, s.ln.Addr())
				if i%2 == 0 {
					c.must(t, "/echo/x")
				}
				clients = append(clients, c)
			}
			eventually(t, "20 idle", func() bool { return old.pool.Counts().Idle == 20 })
			next := s.start(t, "next", Options{}, false)
			if moved, kept := old.leave(); moved != 20 || kept != 0 {
				t.Errorf("moved %d, kept %d", moved, kept)
			}
			for i, c := range clients {
				if a := c.must(t, fmt.Sprintf("/echo/%d", i)); a.worker != "next" || a.close || a.body != fmt.Sprint(i) {
					t.Errorf("%+v", a)
				}
			}
			if n := next.pool.Counts(); n.Adopted != 20 || n.Open != 20 {
				t.Errorf("%+v", n)
			}
			if n := old.pool.Counts(); n.Open != 0 || n.Idle != 0 || n.Moved != 20 || n.Reclaimed != 0 {
				t.Errorf("%+v", n)
			}
			if n := next.queue.Lost() + next.queue.Dropped(); n != 0 {
				t.Errorf("%d lost or dropped", n)
			}
		})
	}
}

// TestOptionsSurvive: an adopted TCP connection is as an accepted one.
func TestOptionsSurvive(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	c := connect(t, s.ln.Addr())
	c.must(t, "/echo/x")
	next := s.start(t, "next", Options{}, false)
	old.leave()
	c.must(t, "/echo/y")
	next.pool.mu.Lock()
	defer next.pool.mu.Unlock()
	for conn := range next.pool.conns {
		raw, err := conn.Conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			nodelay, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
			alive, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			flags, _ := unix.FcntlInt(fd, unix.F_GETFL, 0)
			if nodelay == 0 || alive == 0 || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("nodelay %d, keepalive %d, flags %#o", nodelay, alive, flags)
			}
		})
		if conn.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("%v, the client has %v", conn.RemoteAddr(), c.LocalAddr())
		}
	}
}

// TestPipelinedRequests: what the old worker has in its buffer it answers, in order,
// before the connection moves.
func TestPipelinedRequests(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	c := connect(t, s.ln.Addr())
	text := request("/wait")
	for i := range 5 {
		text += request(fmt.Sprintf("/echo/%d", i))
	}
	if err := c.send(text); err != nil {
		t.Fatal(err)
	}
	<-old.arrived
	s.start(t, "next", Options{}, false)
	left := make(chan [2]int)
	go func() {
		moved, kept := old.leave()
		left <- [2]int{moved, kept}
	}()
	eventually(t, "wanting connections", func() bool {
		o := old.pool.offer.Load()
		if o == nil {
			return false
		}
		_, left, _ := o.look()
		return left > 0
	})
	if err := c.send(request("/echo/5")); err != nil { // stays unread, for the taker
		t.Fatal(err)
	}
	close(old.release)
	if a, err := c.receive(); err != nil || a.close {
		t.Fatalf("%+v, %v", a, err)
	}
	for i := range 6 {
		a, err := c.receive()
		if err != nil || a.body != fmt.Sprint(i) || a.close || a.worker != map[bool]string{true: "old", false: "next"}[i < 5] {
			t.Errorf("answer %d: %+v, %v", i, a, err)
		}
	}
	if n := <-left; n != [2]int{1, 0} {
		t.Errorf("moved, kept: %v", n)
	}
}

// TestHalfARequest: a header that is only half there is read to its end here, answered
// here, and then the connection moves.
func TestHalfARequest(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	c := connect(t, s.ln.Addr())
	c.must(t, "/echo/x")
	eventually(t, "between requests", func() bool { return old.pool.Counts().Idle == 1 })
	if err := c.send("GET /echo/half HTTP/1.1\r\nHo"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reading a header", func() bool { return old.pool.Counts().Idle == 0 })
	s.start(t, "next", Options{}, false)
	left := make(chan int)
	go func() {
		moved, _ := old.leave()
		left <- moved
	}()
	<-old.pool.leaving
	if err := c.send("st: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if a, err := c.receive(); err != nil || a.worker != "old" || a.body != "half" || a.close {
		t.Errorf("%+v, %v", a, err)
	}
	if n := <-left; n != 1 {
		t.Errorf("moved %d", n)
	}
	if a := c.must(t, "/echo/y"); a.worker != "next" {
		t.Errorf("%+v", a)
	}
}

// TestUpgradedAndTLSStay: Leave does not wait for them, and they work on.
func TestUpgradedAndTLSStay(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	s.start(t, "next", Options{}, false)
	secure, roots := certificate(t)
	tlsLn := listen(t)
	old.serve(tls.NewListener(old.pool.Listener(tlsLn, 1), secure))
	upgraded := connect(t, s.ln.Addr())
	if err := upgraded.send(request("/upgrade")); err != nil {
		t.Fatal(err)
	}
	<-old.arrived
	plain := connect(t, s.ln.Addr())
	plain.must(t, "/echo/x")
	private, err := tls.Dial("tcp", tlsLn.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	veiled := newClient(private)
	veiled.must(t, "/echo/x")
	if moved, kept := old.leave(); moved != 1 || kept != 2 {
		t.Errorf("moved %d, kept %d", moved, kept)
	}
	if a := veiled.must(t, "/echo/y"); a.worker != "old" {
		t.Errorf("%+v", a)
	}
	if a, err := upgraded.receive(); err != nil || a.worker != "old" {
		t.Errorf("%+v, %v", a, err)
	}
	if err := upgraded.send("hello"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(upgraded.r); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestFullQueue: what the queue refuses is served here, and goes when there is room.
func TestFullQueue(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{Patience: 50 * time.Millisecond}, true)
	c := connect(t, s.ln.Addr())
	c.must(t, "/echo/x")
	old.pool.adopters[0].leave() // it shall not empty the queue at once
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	q := s.queue(t)
	for err == nil {
		err = q.Put(pair[1], handoff.Message{Kind: 99}) // of a kind that nobody serves
	}
	if !errors.Is(err, handoff.ErrFull) {
		t.Fatal(err)
	}
	unix.Close(pair[1])
	left := make(chan int)
	go func() {
		moved, _ := old.leave()
		left <- moved
	}()
	<-old.pool.leaving
	for range 20 {
		if a := c.must(t, "/echo/y"); a.worker != "old" || a.close {
			t.Errorf("%+v", a)
		}
	}
	s.start(t, "next", Options{}, false)
	if n := <-left; n != 1 {
		t.Errorf("moved %d", n)
	}
	if a := c.must(t, "/echo/z"); a.worker != "next" {
		t.Errorf("%+v", a)
	}
}

// TestNoTaker: the worker takes back what nobody takes, serves it, and gives it to the
// first taker that comes. No more than one request at a time is late.
func TestNoTaker(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{Patience: 20 * time.Millisecond}, true)
	var clients []*client
	for range 8 {
		c := connect(t, s.ln.Addr())
		c.must(t, "/echo/x")
		clients = append(clients, c)
	}
	left := make(chan [2]int)
	go func() {
		moved, kept := old.leave()
		left <- [2]int{moved, kept}
	}()
	eventually(t, "taken back three times", func() bool { return old.pool.Counts().Reclaimed >= 3 })
	for _, c := range clients {
		if a := c.must(t, "/echo/y"); a.worker != "old" || a.close {
			t.Errorf("%+v", a)
		}
	}
	if n := old.pool.Counts(); n.Moved > n.Reclaimed+1 {
		t.Errorf("gave more than one without a taker: %+v", n)
	}
	s.start(t, "next", Options{}, false)
	if n := <-left; n != [2]int{8, 0} {
		t.Errorf("moved, kept: %v", n)
	}
	for _, c := range clients {
		if a := c.must(t, "/echo/z"); a.worker != "next" {
			t.Errorf("%+v", a)
		}
	}
}

// TestDrainClock: when the time is over, Leave says what is left, and that is served on.
func TestDrainClock(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	c := connect(t, s.ln.Addr())
	if err := c.send(request("/wait")); err != nil {
		t.Fatal(err)
	}
	<-old.arrived
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if moved, kept := old.pool.Leave(ctx, old.queue); moved != 0 || kept != 1 {
		t.Errorf("moved %d, kept %d", moved, kept)
	}
	// The handler waits for the server's shutdown, which the worker begins after Leave.
	old.end()
	if a, err := c.receive(); err != nil || a.status != 200 || !a.close {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestGive: at most so many, while the worker goes on accepting.
func TestGive(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	old.pool.adopters[0].leave() // as with a rollout: only the new generation takes
	s.start(t, "next", Options{}, false)
	var clients []*client
	for range 10 {
		c := connect(t, s.ln.Addr())
		c.must(t, "/echo/x")
		clients = append(clients, c)
	}
	if n := old.pool.Give(context.Background(), old.queue, 4); n != 4 {
		t.Errorf("gave %d", n)
	}
	served := map[string]int{}
	for _, c := range clients {
		served[c.must(t, "/echo/y").worker]++
	}
	if served["next"] != 4 || served["old"] != 6 {
		t.Errorf("%v", served)
	}
	if a := connect(t, s.ln.Addr()).must(t, "/echo/z"); a.worker != "old" {
		t.Errorf("%+v", a)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if n := old.pool.Give(ctx, old.queue, 100); n != 7 {
		t.Errorf("gave %d of the rest", n)
	}
}

// TestAdoptedTimeouts: an adopted connection may wait as long as one that stayed, is
// then closed without a word, and its first header has the time of a header.
func TestAdoptedTimeouts(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	silent, slow := connect(t, s.ln.Addr()), connect(t, s.ln.Addr())
	for _, c := range []*client{silent, slow} {
		c.must(t, "/echo/x")
	}
	const header, keepalive = 100 * time.Millisecond, 300 * time.Millisecond
	s.start(t, "next", Options{Clocks: Clocks{Header: header, Keepalive: keepalive}}, false)
	start := time.Now()
	old.leave()
	if err := slow.send("GET"); err != nil {
		t.Fatal(err)
	}
	if a, err := slow.receive(); err != nil || a.status < 400 || time.Since(start) > keepalive {
		t.Errorf("a slow header: %+v, %v after %v", a, err, time.Since(start))
	}
	if b, err := io.ReadAll(silent.r); err != nil || len(b) != 0 || time.Since(start) < keepalive {
		t.Errorf("a silent client: %q, %v after %v", b, err, time.Since(start))
	}
}

// TestStopAfterAdoption: idle clients of a worker that has just adopted them do not
// delay the end of the service, and see an orderly close.
func TestStopAfterAdoption(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	c := connect(t, s.ln.Addr())
	c.must(t, "/echo/x")
	next := s.start(t, "next", Options{}, true)
	old.leave()
	fresh := connect(t, s.ln.Addr())
	eventually(t, "accepted", func() bool { return next.pool.Open() == 2 })
	next.pool.CloseAdopted()
	if b, err := io.ReadAll(c.r); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	fresh.must(t, "/echo/y") // a new one still gets its answer
}

// TestOnlyTheAllowedTake: and a full worker leaves the rest in the queue.
func TestOnlyTheAllowedTake(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, true)
	var may atomic.Bool
	barred := newWorker("barred", Options{}, s.queue(t), nil)
	barred.serve(barred.pool.Adopter(barred.queue, may.Load))
	t.Cleanup(barred.end)
	small := s.start(t, "small", Options{Connections: 2}, false)
	clients := idleClients(t, s, 5)
	left := make(chan int)
	go func() {
		moved, _ := old.leave()
		left <- moved
	}()
	eventually(t, "full", func() bool { return small.pool.Open() == 2 })
	if n := barred.pool.Counts().Adopted; n != 0 {
		t.Errorf("%d taken without leave", n)
	}
	may.Store(true)
	if n := <-left; n != 5 {
		t.Errorf("moved %d", n)
	}
	served := map[string]int{}
	for _, c := range clients {
		served[c.must(t, "/echo/y").worker]++
	}
	if served["small"] != 2 || served["barred"] != 3 {
		t.Errorf("%v", served)
	}
}

// TestLeaveWhileAnAdopterAsks: what allows taking may ask the pool, also in the moment in
// which that leaves.
func TestLeaveWhileAnAdopterAsks(t *testing.T) {
	r, w, err := handoff.Pair()
	if err != nil {
		t.Fatal(err)
	}
	q, err := handoff.Open(r, w)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	pool := NewPool(Options{Connections: 1})
	asked := make(chan struct{})
	first := true
	a := pool.Adopter(q, func() bool {
		if first {
			first = false
			close(asked)
			<-pool.leaving
		}
		return pool.Open() == 0 && pool.Counts().Open == 0
	})
	ended := make(chan error, 1)
	go func() {
		_, err := a.Accept()
		ended <- err
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if moved, kept := pool.Leave(ctx, q); moved != 0 || kept != 0 || ctx.Err() != nil {
		t.Errorf("moved %d, kept %d, %v", moved, kept, ctx.Err())
	}
	if err := <-ended; err != io.EOF {
		t.Error(err)
	}
}
