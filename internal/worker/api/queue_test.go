package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/admission"
)

// office is a server with a model whose runs the test lets go one by one: "doubler" gives
// each number twice, and refuses those below zero.
type office struct {
	t       *testing.T
	api     *API
	address string
	enter   chan []float32 // the first numbers of a run's rows, when it begins
	leave   chan struct{}  // lets a run end
	stopped atomic.Int64   // runs that were told to

	mu     sync.Mutex
	fates  map[Fate]int
	served []Served
	counts map[int]int // answers by status
}

func newOffice(t *testing.T, s ipc.ModelSettings, p admission.Options, timeout time.Duration) *office {
	t.Helper()
	o := &office{t: t, enter: make(chan []float32, 1000), leave: make(chan struct{}), fates: map[Fate]int{}, counts: map[int]int{}}
	info := []inference.TensorInfo{tensor("x", inference.FP32, -1, 2)}
	models, err := repository.Load(engine{"doubler": {in: info, out: info, runUntil: o.run}}, []ipc.ModelFile{{Name: "doubler", Version: "1", Path: "doubler", Options: s}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(models.Close)
	o.api = New(Options{
		Models: models, Permits: admission.New(p), RequestTimeout: timeout,
		Dropped: func(f Fate) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.fates[f]++
		},
		Served: func(_ *repository.Model, s Served) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.served = append(o.served, s)
		},
		Answered: func(status int, _ time.Duration) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.counts[status]++
		},
	})
	o.address = serve(t, o.api, ServerOptions{MaxBody: 64 << 10, HeaderTimeout: time.Minute, RequestTimeout: time.Minute, MaxConnections: 2000})
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { o.api.Watch(ctx) })
	t.Cleanup(func() { cancel(); watch.Wait() })
	return o
}

func (o *office) run(s *stop, in, out []inference.Tensor) error {
	first := []float32{}
	for k := range in[0].Shape[0] {
		first = append(first, in[0].Float32s()[2*k])
	}
	o.enter <- first
	select {
	case <-o.leave:
	case <-s.done():
		o.stopped.Add(1)
		return inference.ErrStopped
	}
	if slices.ContainsFunc(in[0].Float32s(), func(v float32) bool { return v < 0 }) {
		return errors.Join(inference.ErrInput, errors.New("below zero"))
	}
	out[0].Name = "x"
	err := out[0].Reset(inference.FP32, in[0].Shape)
	for k, v := range in[0].Float32s() {
		out[0].Float32s()[k] = 2 * v
	}
	return err
}

// ask sends a request for one row that begins with v on a connection of its own.
func (o *office) ask(v int, header string) *client {
	o.t.Helper()
	c := dial(o.t, o.address)
	body := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[%d,0.5]}]}`, v)
	c.send(o.t, "POST /v2/models/doubler/infer HTTP/1.1\r\nHost: x\r\n"+header+"Content-Length: "+itoa(len(body))+"\r\n\r\n"+body)
	return c
}

// await waits until that many stand in both lines.
func (o *office) await(waiting int) {
	o.t.Helper()
	for end := time.Now().Add(time.Minute); o.api.Permits.Waiting()+o.api.runners.Waiting() != waiting; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			o.t.Fatalf("%d wait for a permit and %d for a runner, want %d", o.api.Permits.Waiting(), o.api.runners.Waiting(), waiting)
		}
	}
}

// doubled checks that c gets the answer to v.
func (o *office) doubled(c *client, v int) {
	o.t.Helper()
	status, body, h := c.answer(o.t)
	if want := fmt.Sprintf(`"data":[%d,1]`, 2*v); status != 200 || !strings.Contains(body, want) || !serverTiming.MatchString(h.Get("Server-Timing")) {
		o.t.Errorf("%d: %d %s %v", v, status, body, h)
	}
}

// fate waits until that many have had this fate.
func (o *office) fate(f Fate, n int) {
	o.t.Helper()
	count := func() int { o.mu.Lock(); defer o.mu.Unlock(); return o.fates[f] }
	for end := time.Now().Add(time.Minute); count() < n && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if got := count(); got != n {
		o.t.Errorf("%d had the fate %d, want %d", got, f, n)
	}
}

// counted waits until as many answers were counted as want has, and compares.
func (o *office) counted(want map[int]int) {
	o.t.Helper()
	total := 0
	for _, n := range want {
		total += n
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		got, n := maps.Clone(o.counts), 0
		o.mu.Unlock()
		for _, k := range got {
			n += k
		}
		if n >= total || time.Now().After(end) {
			if !maps.Equal(got, want) {
				o.t.Errorf("answers %v, want %v", got, want)
			}
			return
		}
	}
}

// TestBatches: requests that come while the model runs are answered by one run, each with
// its own rows, and counted as what they are.
func TestBatches(t *testing.T) {
	o := newOffice(t, ipc.ModelSettings{MaxBatchSize: 4}, admission.Options{Limit: 8, Runners: 1}, time.Minute)
	clients := []*client{o.ask(1, "")}
	if got := <-o.enter; !slices.Equal(got, []float32{1}) {
		t.Fatalf("the first run has %v", got)
	}
	for i := 2; i <= 6; i++ {
		clients = append(clients, o.ask(i, ""))
		o.await(i - 1)
	}
	for _, want := range [][]float32{{2, 3, 4, 5}, {6}} {
		o.leave <- struct{}{}
		if got := <-o.enter; !slices.Equal(got, want) {
			t.Errorf("a run has %v, want %v", got, want)
		}
	}
	o.leave <- struct{}{}
	for i, c := range clients {
		o.doubled(c, i+1)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	led := 0
	for _, s := range o.served {
		if s.Failed || s.Batch != 1 || s.Queue < 0 || s.Input < 0 || s.Engine <= 0 || s.Output < 0 {
			t.Errorf("served %+v", s)
		}
		if s.Led {
			led++
		}
	}
	if len(o.served) != 6 || led != 3 {
		t.Errorf("%d served in %d runs", len(o.served), led)
	}
}

// TestBadInABatch: it fails, and those beside it do not.
func TestBadInABatch(t *testing.T) {
	o := newOffice(t, ipc.ModelSettings{MaxBatchSize: 4}, admission.Options{Limit: 8, Runners: 1}, time.Minute)
	first := o.ask(1, "")
	<-o.enter
	var clients []*client
	for i, v := range []int{2, -3, 4} {
		clients = append(clients, o.ask(v, ""))
		o.await(i + 1)
	}
	close(o.leave)
	o.doubled(first, 1)
	o.doubled(clients[0], 2)
	o.doubled(clients[2], 4)
	if status, body, _ := clients[1].answer(t); status != 400 || !strings.Contains(body, "below zero") {
		t.Errorf("the bad one: %d %s", status, body)
	}
}

// TestLateInABatch: a member whose time is over is answered at once and keeps its
// connection, the run goes on for the other.
func TestLateInABatch(t *testing.T) {
	o := newOffice(t, ipc.ModelSettings{MaxBatchSize: 4}, admission.Options{Limit: 8, Runners: 1}, time.Minute)
	first := o.ask(1, "")
	<-o.enter
	patient := o.ask(2, "")
	o.await(1)
	hasty := o.ask(3, "X-Request-Timeout: 200ms\r\n")
	o.await(2)
	o.leave <- struct{}{}
	<-o.enter
	if status, body, h := hasty.answer(t); status != 504 || h.Get("Connection") == "close" ||
		errorText(t, body) != `model "doubler" gave no answer within X-Request-Timeout, which is 200ms` {
		t.Errorf("%d %s %v", status, body, h)
	}
	o.fate(ExpiredRunning, 1)
	o.leave <- struct{}{}
	o.doubled(first, 1)
	o.doubled(patient, 2)
	if o.stopped.Load() != 0 {
		t.Error("the run was stopped")
	}
}

// TestDeadlines: what cannot be a deadline is refused and named, what can holds.
func TestDeadlines(t *testing.T) {
	o := newOffice(t, ipc.ModelSettings{}, admission.Options{Limit: 1}, time.Minute)
	for header, want := range map[string]string{
		"X-Request-Timeout: 10":                                 `X-Request-Timeout: "10" is no duration: write a number and a unit, such as 250ms`,
		"X-Request-Timeout: soon":                               `X-Request-Timeout: "soon" is no duration`,
		"X-Request-Timeout: -1s":                                "X-Request-Timeout: -1s is not above 0s and at most 24h0m0s",
		"X-Request-Timeout: 0s":                                 "X-Request-Timeout: 0s is not above 0s",
		"x-request-timeout: 1000000h":                           "X-Request-Timeout: 1000000h is not above 0s and at most 24h0m0s",
		"X-Envoy-Expected-Rq-Timeout-Ms: -5":                    `X-Envoy-Expected-Rq-Timeout-Ms: "-5" is no number of milliseconds from 0 to 86400000`,
		"X-Envoy-Expected-Rq-Timeout-Ms: 1.5":                   `X-Envoy-Expected-Rq-Timeout-Ms: "1.5" is no number`,
		"x-envoy-expected-rq-timeout-ms: 99999999999":           "is no number of milliseconds",
		"x-envoy-expected-rq-timeout-ms: 999999999999999999999": "is no number of milliseconds",
	} {
		c := o.ask(1, header+"\r\n")
		if status, body, _ := c.answer(t); status != 400 || !strings.Contains(errorText(t, body), want) {
			t.Errorf("%s: %d %s", header, status, body)
		}
	}
	for timeout, want := range map[string]string{
		"-1":                   "parameters.timeout: -1 is negative",
		`"1s"`:                 "parameters.timeout: ",
		"86400000001":          "parameters.timeout: 86400000001 microseconds are more than 24h0m0s",
		"1e3":                  "parameters.timeout: ",
		"99999999999999999999": "parameters.timeout: ",
	} {
		c := dial(t, o.address)
		c.send(t, post("/v2/models/doubler/infer", `{"parameters":{"timeout":`+timeout+`},"inputs":[]}`))
		if status, body, _ := c.answer(t); status != 400 || !strings.Contains(errorText(t, body), want) {
			t.Errorf("%s: %d %s", timeout, status, body)
		}
	}
	for _, header := range []string{"X-Request-Timeout: 1h\r\n", "X-Envoy-Expected-Rq-Timeout-Ms: 0\r\n", "x-envoy-expected-rq-timeout-ms: 60000\r\n"} {
		c := o.ask(5, header)
		<-o.enter
		o.leave <- struct{}{}
		o.doubled(c, 5)
	}
}

// TestRefusals: each bound answers 503 with the time after which to try again, at once.
func TestRefusals(t *testing.T) {
	const slow = 5 * time.Second
	for name, c := range map[string]struct {
		options admission.Options
		header  string
		body    string // after the data
		want    string
		fate    Fate
	}{
		"number":   {admission.Options{MaxWaiting: 1}, "", "", "as many requests wait as may (queue.max_requests)", RefusedFull},
		"bytes":    {admission.Options{MaxBytes: 100}, "", "", "hold as many bytes as they may (queue.max_bytes)", RefusedFull},
		"time":     {admission.Options{MaxWait: time.Second}, "", "", "longer than it may (queue.max_wait) or than clients have waited lately", RefusedSlow},
		"deadline": {admission.Options{}, "X-Request-Timeout: 3s\r\n", "", "too long for 3s (X-Request-Timeout)", RefusedLate},
		"envoy":    {admission.Options{}, "x-envoy-expected-rq-timeout-ms: 3000\r\n", "", "too long for 3s (X-Envoy-Expected-Rq-Timeout-Ms)", RefusedLate},
		"protocol": {admission.Options{}, "", `,"parameters":{"x":{"timeout":1},"timeout":3000000}`, "too long for 3s (parameters.timeout)", RefusedLate},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Limit = 1
			o := newOffice(t, ipc.ModelSettings{}, c.options, time.Minute)
			held, err := o.api.Permits.Acquire(admission.Claim{Cost: slow})
			if err != nil {
				t.Fatal(err)
			}
			waits := o.ask(1, "") // one may always wait
			o.await(1)
			body := `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[7,0.5]}]` + c.body + `}`
			refused := dial(t, o.address)
			refused.send(t, "POST /v2/models/doubler/infer HTTP/1.1\r\nHost: x\r\n"+c.header+"Content-Length: "+itoa(len(body))+"\r\n\r\n"+body)
			status, text, h := refused.answer(t)
			after, err := strconv.Atoi(h.Get("Retry-After"))
			if status != 503 || !strings.Contains(errorText(t, text), c.want) || err != nil || after < 1 || after > 6 {
				t.Errorf("%d %s %v", status, text, h)
			}
			o.fate(c.fate, 1)
			o.api.Permits.Release(held)
			<-o.enter
			close(o.leave)
			o.doubled(waits, 1)
			refused.send(t, post("/v2/models/doubler/infer", body)) // its connection goes on
			if status, text, _ := refused.answer(t); status != 200 {
				t.Errorf("%d %s", status, text)
			}
		})
	}
}

// TestClientsThatDoNotWait: of many in line whose clients leave nothing more is run, with
// and without batches, and however they leave.
func TestClientsThatDoNotWait(t *testing.T) {
	const clients = 100
	for name, s := range map[string]ipc.ModelSettings{"alone": {}, "batches": {MaxBatchSize: 8}} {
		for how, leave := range map[string]func(*client) error{
			"close": func(c *client) error { return c.Close() },
			"half":  func(c *client) error { return c.Conn.(*net.TCPConn).CloseWrite() },
			"reset": func(c *client) error { return errors.Join(c.Conn.(*net.TCPConn).SetLinger(0), c.Close()) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				limit := 1
				if s.MaxBatchSize > 0 {
					limit = 16
				}
				o := newOffice(t, s, admission.Options{Limit: limit, Runners: 1}, time.Minute)
				first := o.ask(1, "")
				<-o.enter
				var waiting []*client
				for i := range clients {
					waiting = append(waiting, o.ask(i, ""))
				}
				o.await(clients)
				for _, c := range waiting {
					if err := leave(c); err != nil {
						t.Fatal(err)
					}
				}
				o.await(0)
				o.fate(GoneWaiting, clients)
				close(o.leave)
				o.doubled(first, 1)
				last := o.ask(2, "")
				o.doubled(last, 2)
				if n := len(o.enter); n != 1 {
					t.Errorf("%d runs for those who had gone", n-1)
				}
				o.counted(map[int]int{statusGone: clients, 200: 2})
			})
		}
	}
}

// TestSelfTestInLine: this worker's own runs wait in the same line, and have no client who
// could go.
func TestSelfTestInLine(t *testing.T) {
	o := newOffice(t, ipc.ModelSettings{}, admission.Options{Limit: 1}, time.Minute)
	first := o.ask(1, "")
	<-o.enter
	m := o.api.Models.All()[0]
	in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 1)
	if err := in[0].Reset(inference.FP32, []int64{1, 2}); err != nil {
		t.Fatal(err)
	}
	tested := make(chan error, 1)
	go func() { tested <- o.api.Run(m, in, out, time.Minute) }()
	o.await(1)
	gone := o.ask(2, "")
	o.await(2)
	gone.Close()
	o.fate(GoneWaiting, 1) // so the line has been looked at, the self-test in it
	o.leave <- struct{}{}
	o.doubled(first, 1)
	<-o.enter
	o.leave <- struct{}{}
	if err := <-tested; err != nil {
		t.Error(err)
	}
}

// TestClientThatLeavesARun: the run is told to stop, unless another still waits for it.
func TestClientThatLeavesARun(t *testing.T) {
	o := newOffice(t, ipc.ModelSettings{MaxBatchSize: 8}, admission.Options{Limit: 16, Runners: 1}, time.Minute)
	first := o.ask(1, "")
	<-o.enter
	a := o.ask(2, "")
	o.await(1)
	b := o.ask(3, "")
	o.await(2)
	first.Close()
	o.fate(GoneRunning, 1)
	if got := <-o.enter; !slices.Equal(got, []float32{2, 3}) || o.stopped.Load() != 1 {
		t.Fatalf("then %v run, stopped %d", got, o.stopped.Load())
	}
	b.Close()
	o.fate(GoneRunning, 2)
	o.leave <- struct{}{}
	o.doubled(a, 2)
	if o.stopped.Load() != 1 {
		t.Error("a run was stopped for which somebody waited")
	}
}
