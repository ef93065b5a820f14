package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const limit = 30 * time.Second // how long a test waits for an event that must come

// visit is one connection to a test's server.
type visit struct {
	*net.TCPConn
	n int // which connection of the server this is, from 0
	r *bufio.Reader
}

// request reads one request; false at the connection's end.
func (v *visit) request() bool {
	r, err := http.ReadRequest(v.r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

// say writes s.
func (v *visit) say(s string) { _, _ = io.WriteString(v, s) }

// ok answers a request as worker.
func (v *visit) ok(worker string) {
	v.say("HTTP/1.1 200 OK\r\nX-Preforkd-Worker: " + worker + "\r\nContent-Length: 2\r\n\r\nhi")
}

// reset makes the connection's end a reset.
func (v *visit) reset() { _ = v.SetLinger(0) }

// serve runs handle for every connection, closes the connection when handle returns,
// and returns the address. All connections have ended when the test has.
func serve(t testing.TB, handle func(v *visit)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			v := &visit{conn.(*net.TCPConn), n, bufio.NewReader(conn)}
			all.Go(func() {
				defer v.Close()
				handle(v)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// nobody returns an address where nobody listens.
func nobody(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// polite answers everything; each connection stays with one of two workers.
func polite(v *visit) {
	for v.request() {
		v.polite()
	}
}

func (v *visit) polite() { v.ok(fmt.Sprintf("main/%d/%d", v.n%2, 100+v.n%2)) }

// together is polite once that many connections have asked: however few answers there are to be, each has some.
func together(conns int) func(*visit) {
	var asked sync.WaitGroup
	asked.Add(conns)
	return func(v *visit) {
		for first := true; v.request(); first = false {
			if first {
				asked.Done()
				asked.Wait()
			}
			v.polite()
		}
	}
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	if o.Request == nil && o.Each == nil {
		o.Request = Get("/")
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	sums(t, r)
	return r
}

// sums checks that every request was counted once, whichever way one looks.
func sums(t *testing.T, r *Report) {
	t.Helper()
	if r.Requests != r.Answers+r.Failures.Total()+r.Abandoned {
		t.Errorf("%d requests, %d answers, failures %v, %d abandoned", r.Requests, r.Answers, r.Failures, r.Abandoned)
	}
	var answers, failures, dials uint64
	for _, c := range r.Conns {
		answers, failures, dials = answers+c.Answers, failures+c.Failures, dials+c.Dials
	}
	if answers != r.Answers || failures != r.Failures.Total() || dials != r.Dials {
		t.Errorf("by connection %d answers, %d failures, %d dials; report:\n%v", answers, failures, dials, r)
	}
	answers, failures = 0, 0
	for _, w := range r.Workers {
		answers, failures = answers+w.Answers, failures+w.Failures.Total()
	}
	if answers != r.Answers || failures != r.Failures.Total() || r.Histogram.Count() != r.Answers {
		t.Errorf("by worker %d answers, %d failures, %d latencies; report:\n%v", answers, failures, r.Histogram.Count(), r)
	}
	var listed uint64
	for _, f := range r.First {
		if !f.Warmup {
			listed++
		}
	}
	if listed != min(r.Failures.Total(), defaultFailures) {
		t.Errorf("%d failures listed, %v", listed, r.Failures)
	}
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }
