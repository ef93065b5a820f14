package load

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestClosedLoop(t *testing.T) {
	r := run(t, Options{Addr: serve(t, together(4)), Conns: 4, Keepalive: true, Requests: 400, Check: want("hi")})
	if r.Answers != 400 || r.Dials != 4 || r.Closes != (Closes{}) || r.Statuses[200] != 400 {
		t.Errorf("%v", r)
	}
	if len(r.Workers) != 2 || r.Workers[0].Name != "main/0/100" || r.Workers[1].Name != "main/1/101" {
		t.Errorf("%+v", r.Workers)
	}
	l := r.Latency
	if l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.Max || r.Elapsed <= 0 || r.Gap <= 0 || r.Gap > r.Elapsed {
		t.Errorf("%v", r)
	}
}

// TestTrace: every measured answer is in it, in order, with what the histogram has of it.
func TestTrace(t *testing.T) {
	r := run(t, Options{Addr: serve(t, polite), Conns: 4, Keepalive: true, Requests: 200, Trace: true, Warmup: time.Millisecond})
	if uint64(len(r.Trace)) != r.Answers || r.Answers != 200 {
		t.Fatalf("%d points of %d answers", len(r.Trace), r.Answers)
	}
	longest := time.Duration(0)
	for i, p := range r.Trace {
		if p.Took <= 0 || p.At < p.Took || p.At > r.Elapsed || i > 0 && p.At < r.Trace[i-1].At {
			t.Fatalf("point %d is %+v, the one before %+v", i, p, r.Trace[max(i-1, 0)])
		}
		longest = max(longest, p.Took)
	}
	if longest != r.Latency.Max {
		t.Errorf("the longest is %v, in the trace %v", r.Latency.Max, longest)
	}
	if r := run(t, Options{Addr: serve(t, polite), Requests: 3}); len(r.Trace) != 0 {
		t.Errorf("%d points that nobody asked for", len(r.Trace))
	}
}

func TestConnectionPerRequest(t *testing.T) {
	closes := make(chan bool, 20)
	addr := serve(t, func(v *visit) {
		for {
			r, err := http.ReadRequest(v.r)
			if err != nil {
				return
			}
			closes <- r.Close
			v.ok("w")
		}
	})
	each := func(dst []byte, client int, n uint64) []byte {
		return append(dst, Get("/"+strconv.Itoa(client)+"/"+strconv.FormatUint(n, 10))...)
	}
	for _, o := range []Options{{Request: Get("/")}, {Each: each}} {
		o.Addr, o.Conns, o.Requests = addr, 2, 10
		if r := run(t, o); r.Answers != 10 || r.Dials != 10 || r.Closes != (Closes{}) {
			t.Errorf("%v", r)
		}
		for range 10 {
			if !<-closes {
				t.Error("a request does not say Connection: close")
			}
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = server.Serve(l) }() // ends with Close
	defer server.Close()
	if r := run(t, Options{Addr: "unix:" + path, Keepalive: true, Requests: 5, Status: 404}); r.Answers != 5 || r.Dials != 1 {
		t.Errorf("%v", r)
	}
}

// TestForeignServer has net/http answer, in whatever way it frames its answers.
func TestForeignServer(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		switch r.URL.Path {
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/chunked":
			for i := 0; i < len(long); i += 10_000 {
				_, _ = w.Write([]byte(long[i : i+10_000]))
				w.(http.Flusher).Flush()
			}
		default:
			w.Header().Set("Content-Length", strconv.Itoa(len(long)))
			_, _ = w.Write([]byte(long))
		}
	})}
	go func() { _ = server.Serve(l) }() // ends with Close
	defer server.Close()
	head := append([]byte("HEAD"), Get("/head")[3:]...)
	for _, c := range []struct {
		request []byte
		body    string
	}{{Get("/empty"), ""}, {Get("/chunked"), long}, {Get("/plain"), long}, {head, ""}} {
		r := run(t, Options{Addr: l.Addr().String(), Request: c.request, Keepalive: true, Requests: 5, Check: want(c.body)})
		if r.Answers != 5 || r.Dials != 1 {
			t.Errorf("%q: %v", c.request, r)
		}
	}
}

// TestStop awaits what is in flight.
func TestStop(t *testing.T) {
	release := make(chan struct{})
	g := generator(t, Options{Conns: 3, Keepalive: true, Addr: serve(t, func(v *visit) {
		for v.request() {
			<-release
			v.ok("w")
		}
	})})
	reports := start(t, t.Context(), g)
	wait(t, g, func(p Progress) bool { return p.Dials == 3 && p.InFlight == 3 })
	g.Stop()
	close(release)
	if r := <-reports; r.Answers != 3 || r.Requests != 3 {
		t.Errorf("%v", r)
	}
}

// TestContextEnds abandons what is in flight.
func TestContextEnds(t *testing.T) {
	g := generator(t, Options{Conns: 3, Keepalive: true, Addr: serve(t, func(v *visit) {
		for v.request() {
			if v.n == 0 {
				v.ok("w")
			}
		}
	})})
	ctx, cancel := context.WithCancel(t.Context())
	reports := start(t, ctx, g)
	wait(t, g, func(p Progress) bool { return p.Dials == 3 && p.Answers >= 10 })
	cancel()
	if r := <-reports; r.Failures.Total() != 0 || r.Abandoned < 2 || r.Abandoned > 3 || r.Closes != (Closes{}) {
		t.Errorf("%+v\n%v", r.Closes, r)
	}
	if err := g.WaitAnswers(t.Context(), 1<<40); !errors.Is(err, ErrEnded) {
		t.Errorf("%v", err)
	}
	if _, err := g.Run(t.Context()); err == nil {
		t.Error("a generator ran twice")
	}
}

func TestWait(t *testing.T) {
	g := generator(t, Options{Conns: 2, Keepalive: true, Addr: serve(t, together(2)), Warmup: time.Millisecond})
	reports := start(t, t.Context(), g)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := g.WaitAnswers(ctx, 100); err != nil {
		t.Error(err)
	}
	before := g.Progress()
	if err := g.WaitMore(ctx, 100); err != nil {
		t.Error(err)
	}
	after := g.Progress()
	if after.Answers < before.Answers+100 || after.Requests() != after.Answers {
		t.Errorf("%+v, then %+v", before, after)
	}
	wait(t, g, func(p Progress) bool {
		return p.Measuring && p.Workers["main/0/100"] > 200 && p.Workers["main/1/101"] > 200
	})
	done, undone := context.WithCancel(ctx)
	undone()
	if err := g.WaitMore(done, 1<<40); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	g.Stop()
	r := <-reports
	if r.Warmup.Answers+r.Answers != g.Progress().Answers {
		t.Errorf("%d in warm-up, %d measured, %d together", r.Warmup.Answers, r.Answers, g.Progress().Answers)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	get := Get("/")
	for _, o := range []Options{
		{Request: get},
		{Addr: "localhost", Request: get},
		{Addr: "unix:", Request: get},
		{Addr: "localhost:80"},
		{Addr: "localhost:80", Request: []byte("GET / HTTP/1.1\r\n")},
		{Addr: "localhost:80", Request: get, Rate: -1},
		{Addr: "localhost:80", Request: get, Rate: 1, Think: 1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}

// mute answers without allocating.
func mute(v *visit) {
	answer := []byte("HTTP/1.1 200 OK\r\nX-Preforkd-Worker: main/0/7\r\nContent-Length: 2\r\n\r\nhi")
	buf := make([]byte, 1024)
	for {
		if n, err := v.Read(buf); err != nil || n == 0 {
			return
		}
		if _, err := v.Write(answer); err != nil {
			return
		}
	}
}

// TestNoAllocations: the client shares the cores with what it measures.
func TestNoAllocations(t *testing.T) {
	var before, after runtime.MemStats
	var checked atomic.Int64
	run(t, Options{Addr: serve(t, mute), Conns: 2, Keepalive: true, Requests: 6000, Check: func(int, []byte) error {
		switch checked.Add(1) {
		case 1000: // all is warm
			runtime.ReadMemStats(&before)
		case 6000:
			runtime.ReadMemStats(&after)
		}
		return nil
	}})
	// Some: a latency in a power of two never met before, the runtime's own.
	if n := after.Mallocs - before.Mallocs; n > 100 {
		t.Errorf("%d allocations in 5000 requests", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	addr := serve(b, mute)
	b.ReportAllocs()
	b.ResetTimer()
	r, err := Run(b.Context(), Options{Addr: addr, Request: Get("/"), Conns: 2, Keepalive: true, Requests: uint64(b.N)})
	if err != nil || r.Answers != uint64(b.N) {
		b.Errorf("%v, %v", r, err)
	}
}

func generator(t *testing.T, o Options) *Generator {
	t.Helper()
	o.Request = Get("/")
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// start runs g; the report comes over the channel.
func start(t *testing.T, ctx context.Context, g *Generator) <-chan *Report { //nolint:revive // t first, as everywhere
	t.Helper()
	reports := make(chan *Report, 1)
	go func() {
		r, err := g.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	return reports
}

func wait(t *testing.T, g *Generator, cond func(Progress) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := g.Wait(ctx, cond); err != nil {
		t.Fatalf("%v: %+v", err, g.Progress())
	}
}

// TestOtherStatusesAreTimed: by status, and apart from answers.
func TestOtherStatusesAreTimed(t *testing.T) {
	addr := serve(t, func(v *visit) {
		for _, status := range []string{"200 OK", "503 Service Unavailable", "503 Service Unavailable", "504 Gateway Timeout"} {
			if !v.request() {
				return
			}
			v.say("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n")
		}
		v.request()
	})
	r := run(t, Options{Addr: addr, Keepalive: true, Requests: 4})
	if r.Answers != 1 || r.Statuses[503] != 2 || r.Statuses[504] != 1 || len(r.Others) != 2 {
		t.Fatalf("%v, %v", r, r.Others)
	}
	for _, status := range []int{503, 504} {
		if o := r.Others[status]; o.P50 <= 0 || o.Max < o.P50 {
			t.Errorf("%d: %+v", status, o)
		}
	}
}
