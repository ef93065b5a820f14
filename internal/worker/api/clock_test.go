package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
)

// stop is the fake engine's: a run may look at it, or not.
type stop struct {
	lock sync.Mutex
	set  chan struct{} // closed: set
}

func newStop() *stop { return &stop{set: make(chan struct{})} }

func (s *stop) Set() {
	s.lock.Lock()
	defer s.lock.Unlock()
	select {
	case <-s.set:
	default:
		close(s.set)
	}
}

func (s *stop) Clear() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.set = make(chan struct{})
}

func (s *stop) done() <-chan struct{} {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.set
}

// station is a server with the request clock, whose connections come through
// worker/accept, with a quick model, "quick", and one that does what run says, "slow".
type station struct {
	t         *testing.T
	api       *API
	address   net.Addr
	permits   *admission.Permits
	pool      *accept.Pool
	leaving   atomic.Bool
	began     atomic.Int64
	begun     chan struct{} // a slow run has begun
	counts    [600]atomic.Int64
	took      atomic.Int64 // of the last answer
	unwrapped bool
}

// limit is the request clock of stations.
const limit = 40 * time.Millisecond

func newStation(t *testing.T, network string, run func(s *stop) error) *station {
	t.Helper()
	st := &station{t: t, permits: admission.New(admission.Options{Limit: 1}), begun: make(chan struct{}, 1000), unwrapped: network == "bare"}
	info := []inference.TensorInfo{tensor("x", inference.FP32, -1, 1)}
	echo := func(in, out []inference.Tensor) error {
		out[0].Name = "x"
		err := out[0].Reset(inference.FP32, in[0].Shape)
		copy(out[0].Raw(), in[0].Raw())
		return err
	}
	engine := engine{
		"quick": {in: info, out: info, run: echo},
		"slow": {in: info, out: info, runUntil: func(s *stop, in, out []inference.Tensor) error {
			st.begun <- struct{}{}
			return errors.Join(run(s), echo(in, out))
		}},
	}
	models, err := repository.Load(engine, []ipc.ModelFile{{Name: "quick", Version: "1", Path: "quick"}, {Name: "slow", Version: "3", Path: "slow"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(models.Close)
	st.api = New(Options{
		Models: models, Permits: st.permits, RequestTimeout: limit, WorkerHeader: "main/0/7",
		Ready: func() bool { return !st.leaving.Load() },
		Began: func() { st.began.Add(1) },
		Answered: func(status int, took time.Duration) {
			st.counts[status].Add(1)
			st.took.Store(int64(took))
		},
	})
	st.serve(network)
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { st.api.Watch(ctx) })
	t.Cleanup(func() {
		cancel()
		watch.Wait()
	})
	return st
}

// engine has models by path.
type engine map[string]*adder

func (e engine) Platform() string                          { return "test" }
func (e engine) Version() string                           { return "1" }
func (e engine) Close() error                              { return nil }
func (e engine) NewStop() (inference.Stop, error)          { return newStop(), nil }
func (e engine) Load(path string) (inference.Model, error) { return e[path], nil }

func (e engine) Prepare(string, string) error                 { return errors.ErrUnsupported }
func (e engine) LoadPrepared(string) (inference.Model, error) { return nil, errors.ErrUnsupported }

func (st *station) serve(network string) {
	st.t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(st.t.TempDir(), "socket")
	} else {
		network = "tcp"
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		st.t.Fatal(err)
	}
	st.address = ln.Addr()
	server := st.api.Server(limits)
	st.pool = accept.NewPool(accept.Options{Connections: 100})
	if !st.unwrapped {
		ln = st.pool.Listener(ln, 0)
		server.ConnState = func(c net.Conn, s fasthttp.ConnState) { st.pool.State(c, accept.State(s)) }
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	st.t.Cleanup(func() {
		err := server.Shutdown()
		_ = ln.Close() // Shutdown knows no listener before Serve has begun
		if err = errors.Join(err, <-ended); err != nil {
			st.t.Error(err)
		}
	})
}

func (st *station) dial() *client {
	st.t.Helper()
	return dialOn(st.t, st.address.Network(), st.address.String())
}

// slow and quick are requests to the models.
var (
	slow     = post("/predict/slow", `{"features":[7]}`)
	quick    = post("/predict/quick", `{"features":[7]}`)
	sevens   = `"prediction":7,`
	lateText = fmt.Sprintf(`model "slow" gave no answer within timeouts.request, which is %s`, limit)
)

// ends demands that c is at its end.
func (c *client) ends(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		t.Errorf("after the last answer: %q, %v", rest, err)
	}
}

// late demands a 504 of the request clock.
func (c *client) late(t *testing.T, closes bool) {
	t.Helper()
	status, body, h := c.answer(t)
	if status != 504 || body != `{"detail":`+jsonText(lateText)+`}` || h.Get("Content-Type") != "application/json" ||
		h.Get("X-Preforkd-Worker") != "main/0/7" || h.Get("Server") != "preforkd" || h.Get("Date") == "" {
		t.Errorf("%d %s %v", status, body, h)
	}
	if (h.Get("Connection") == "close") != closes {
		t.Errorf("Connection: %q", h.Get("Connection"))
	}
	if closes {
		c.ends(t)
	}
}

func (c *client) fine(t *testing.T) {
	t.Helper()
	if status, body, _ := c.answer(t); status != 200 || !strings.Contains(body, sevens) {
		t.Errorf("%d %s", status, body)
	}
}

// quiet waits until nobody holds a permit and no request is under way, and demands these
// counts.
func (st *station) quiet(counts map[int]int64) {
	st.t.Helper()
	total := func() (n int64) {
		for i := range st.counts {
			n += st.counts[i].Load()
		}
		return n
	}
	for st.permits.InUse() > 0 || total() < st.began.Load() {
		time.Sleep(time.Millisecond)
	}
	for status := range st.counts {
		if n := st.counts[status].Load(); n != counts[status] {
			st.t.Errorf("%d answers have the status %d, want %d", n, status, counts[status])
		}
	}
}

// TestStoppedRun: a run that stops when it is told to is answered as any other request,
// and its connection goes on.
func TestStoppedRun(t *testing.T) {
	st := newStation(t, "tcp", func(s *stop) error {
		<-s.done()
		return inference.ErrStopped
	})
	c := st.dial()
	for range 3 {
		c.send(t, slow)
		c.late(t, false)
		if took := time.Duration(st.took.Load()); took < limit {
			t.Errorf("answered after %v", took)
		}
		c.send(t, quick)
		c.fine(t)
	}
	st.quiet(map[int]int64{200: 3, 504: 3})
}

// TestStubbornRun: a run that nothing stops keeps its permit; its client and all others
// are answered in time.
func TestStubbornRun(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			end := make(chan struct{})
			st := newStation(t, network, func(*stop) error { <-end; return nil })
			c, other := st.dial(), st.dial()
			other.send(t, quick)
			other.fine(t)
			c.send(t, slow)
			<-st.begun
			other.send(t, quick)
			if status, body, h := other.answer(t); status != 504 || h.Get("Connection") != "" {
				t.Errorf("another: %d %s", status, body)
			}
			c.late(t, true)
			for st.pool.Open() > 1 {
				time.Sleep(time.Millisecond)
			}
			if st.permits.InUse() != 1 {
				t.Errorf("%d permits in use", st.permits.InUse())
			}
			other.send(t, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
			if status, _, _ := other.answer(t); status != 200 {
				t.Errorf("alive: %d", status)
			}
			close(end)
			st.quiet(map[int]int64{200: 2, 504: 2})
			other.send(t, quick)
			other.fine(t)
		})
	}
}

// TestOldClients have no keep-alive to begin with.
func TestOldClients(t *testing.T) {
	end := make(chan struct{})
	st := newStation(t, "tcp", func(*stop) error { <-end; return nil })
	for i, text := range []string{strings.Replace(slow, "1.1", "1.0", 1), strings.Replace(slow, "Host: x", "Host: x\r\nConnection: close", 1)} {
		if i > 0 {
			end = make(chan struct{})
		}
		c := st.dial()
		c.send(t, text)
		c.late(t, true)
		close(end)
		st.quiet(map[int]int64{504: int64(i + 1)})
	}
}

// TestPipelinedRequests: what the client sent ahead is not answered on a connection that
// ends, and no answer overtakes another.
func TestPipelinedRequests(t *testing.T) {
	t.Run("behind", func(t *testing.T) {
		end := make(chan struct{})
		st := newStation(t, "tcp", func(*stop) error { <-end; return nil })
		c := st.dial()
		c.send(t, slow+quick)
		c.late(t, true)
		close(end)
		st.quiet(map[int]int64{504: 1})
	})
	t.Run("ahead", func(t *testing.T) {
		end := make(chan struct{})
		st := newStation(t, "tcp", func(*stop) error { <-end; return nil })
		c := st.dial()
		c.send(t, quick+slow)
		<-st.begun
		for !st.given() {
			time.Sleep(time.Millisecond)
		}
		close(end)
		c.fine(t)
		c.fine(t)
		c.send(t, quick) // it goes on
		c.fine(t)
		st.quiet(map[int]int64{200: 3})
	})
	t.Run("ahead, stopped", func(t *testing.T) {
		st := newStation(t, "tcp", func(s *stop) error { <-s.done(); return inference.ErrStopped })
		c := st.dial()
		c.send(t, quick+slow+quick)
		c.fine(t)
		c.late(t, false)
		c.fine(t)
	})
}

// given tells whether Watch has given the run up.
func (st *station) given() bool {
	c := &st.api.calls[0]
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.answered
}

// TestRunsThatEndAsTheirTimeDoes: whoever is first, the client gets one whole answer.
func TestRunsThatEndAsTheirTimeDoes(t *testing.T) {
	var turn atomic.Int64
	st := newStation(t, "tcp", func(*stop) error {
		time.Sleep(limit + time.Duration(turn.Add(1)%12-3)*time.Millisecond)
		return nil
	})
	c, fine, late, refused := st.dial(), int64(0), int64(0), int64(0)
	for range 60 {
		c.send(t, slow)
		status, body, h := c.answer(t)
		switch {
		case status == 200 && strings.Contains(body, sevens):
			fine++
		case status == 504 && (errorText(t, body) == lateText || strings.HasPrefix(errorText(t, body), "no inference could start within")): // behind the one before
			late++
		case status == 503 && strings.Contains(errorText(t, body), "which is too long for 40ms (timeouts.request)"): // likewise
			refused++
		default:
			t.Errorf("%d %s", status, body)
		}
		if h.Get("Connection") == "close" {
			c.ends(t)
			c = st.dial()
		}
	}
	st.quiet(map[int]int64{200: fine, 504: late, 503: refused})
}

// TestClientsThatLeave before their answer harm nobody.
func TestClientsThatLeave(t *testing.T) {
	end := make(chan struct{})
	st := newStation(t, "tcp", func(*stop) error { <-end; return nil })
	c := st.dial()
	c.send(t, slow)
	<-st.begun
	if err := errors.Join(c.Conn.(*net.TCPConn).SetLinger(0), c.Close()); err != nil { // a reset
		t.Fatal(err)
	}
	for !st.given() { // told to stop, which it does not
		time.Sleep(time.Millisecond)
	}
	close(end)
	st.quiet(map[int]int64{499: 1})
	other := st.dial()
	other.send(t, quick)
	other.fine(t)
}

// TestForeignConnections cannot be answered early, and are answered late.
func TestForeignConnections(t *testing.T) {
	end := make(chan struct{})
	st := newStation(t, "bare", func(*stop) error { <-end; return nil })
	c := st.dial()
	c.send(t, slow)
	for !st.given() {
		time.Sleep(time.Millisecond)
	}
	close(end)
	c.fine(t)
	st.quiet(map[int]int64{200: 1})
}

// TestPanicOfALateRun ends the request once.
func TestPanicOfALateRun(t *testing.T) {
	end := make(chan struct{})
	st := newStation(t, "tcp", func(*stop) error { <-end; panic("late") })
	c := st.dial()
	c.send(t, slow)
	c.late(t, true)
	close(end)
	st.quiet(map[int]int64{504: 1})
	other := st.dial()
	other.send(t, quick)
	other.fine(t)
}

// TestLeavingWithAStubbornRun sends away whoever waits behind it, but not while the worker
// stays.
func TestLeavingWithAStubbornRun(t *testing.T) {
	end := make(chan struct{})
	st := newStation(t, "tcp", func(*stop) error { <-end; return nil })
	c := st.dial()
	c.send(t, slow)
	c.late(t, true)
	st.leaving.Store(true)
	other := st.dial()
	for {
		other.send(t, quick)
		status, body, h := other.answer(t)
		if status == 504 { // it came before Watch saw that the worker leaves
			continue
		}
		if status != http.StatusServiceUnavailable || errorText(t, body) != st.api.leaving.Error() || h.Get("Connection") != "" {
			t.Errorf("%d %s", status, body)
		}
		break
	}
	close(end)
}

// TestWithoutAClock Watch has nothing to do.
func TestWithoutAClock(t *testing.T) {
	a := newAPI(t, Options{})
	a.RequestTimeout = 0
	a.Changed()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { a.Watch(ctx); close(ended) }()
	c := dial(t, serve(t, a, limits))
	c.send(t, post("/predict", features))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	cancel()
	<-ended
}

// jsonText is text as a JSON string.
func jsonText(text string) string { return string(codec.AppendString(nil, text)) }
