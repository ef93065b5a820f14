package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/lab"
)

// labWorker is a server with routes, and what was counted.
type labWorker struct {
	t       *testing.T
	api     *API
	address string

	mu        sync.Mutex
	running   [Layers]int
	waiting   [Layers]int
	refused   [Layers]int
	fates     map[Fate]int
	misplaced []string
}

// startLab serves routes on layers with room for so many.
func startLab(t *testing.T, o Options, routes ...Route) *labWorker {
	t.Helper()
	l := &labWorker{t: t, fates: map[Fate]int{}}
	o.Routes = routes
	note := func(f func()) {
		l.mu.Lock()
		defer l.mu.Unlock()
		f()
	}
	o.Layers.Observe = func(at Layer, running, waiting int) {
		note(func() { l.running[at], l.waiting[at] = running, waiting })
	}
	o.Layers.Refused = func(at Layer) { note(func() { l.refused[at]++ }) }
	o.Dropped = func(f Fate) { note(func() { l.fates[f]++ }) }
	o.Misplaced = func(path, why string) { note(func() { l.misplaced = append(l.misplaced, why) }) }
	o.Permits = admission.New(admission.Options{Limit: 1, MaxWaiting: 1, Observe: func(inUse, waits int) {
		note(func() { l.running[Compute], l.waiting[Compute] = inUse, waits })
	}})
	l.api = newAPI(t, o)
	l.address = serve(t, l.api, limits)
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { l.api.Watch(ctx) })
	t.Cleanup(func() { cancel(); watch.Wait() })
	return l
}

// ask sends a request on a connection of its own.
func (l *labWorker) ask(path string, headers ...string) *client {
	l.t.Helper()
	c := dial(l.t, l.address)
	c.send(l.t, "GET "+path+" HTTP/1.1\r\nHost: x\r\n"+strings.Join(headers, "")+"\r\n")
	return c
}

// await waits until what the layer has counted is as wanted.
func (l *labWorker) await(at Layer, running, waiting, refused int) {
	l.t.Helper()
	counted := func() [3]int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return [3]int{l.running[at], l.waiting[at], l.refused[at]}
	}
	for end := time.Now().Add(time.Minute); counted() != [3]int{running, waiting, refused}; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("%s: running, waiting, refused are %v, want %d, %d, %d", at, counted(), running, waiting, refused)
		}
	}
}

// TestRoutesAnswer on every layer, with what they did.
func TestRoutesAnswer(t *testing.T) {
	const d = 5 * time.Millisecond
	var routes []Route
	for l := Async; l < Layers; l++ {
		for k, name := range []string{"sleep", "block", "burn"} {
			routes = append(routes, Route{Path: fmt.Sprintf("/lab/%s-%s", l, name), Layer: l, Lab: &Lab{lab.Kind(k), d}})
		}
	}
	w := startLab(t, Options{}, routes...)
	for _, r := range routes {
		for _, method := range []string{"GET", "POST"} {
			c := dial(t, w.address)
			c.send(t, method+" "+r.Path+"?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
			status, body, _ := c.answer(t)
			var got struct {
				Route, Layer string
				Began        int64      `json:"began_us"`
				Ended        int64      `json:"ended_us"`
				Waited       int64      `json:"waited_us"`
				Used         int64      `json:"used_us"`
				Slices       [][2]int64 `json:"slices_us"`
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
				t.Fatalf("%s: %d %s: %v", r.Path, status, body, err)
			}
			spent, slices := got.Waited, 0
			if r.Lab.Kind == lab.Burn {
				spent, slices = got.Used, 1
			}
			if got.Route != r.Path || got.Layer != r.Layer.String() || spent < d.Microseconds()-1000 || got.Ended-got.Began < spent-1 || len(got.Slices) < slices {
				t.Errorf("%s: %s", r.Path, body)
			}
		}
	}
	for _, path := range []string{"/lab", "/lab/", "/lab/%73ync-sleep", "/lab/sync-sleep/"} {
		if status, _, _ := w.ask(path).answer(t); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	for l := Async; l < Layers; l++ {
		w.await(l, 0, 0, 0)
	}
}

// TestAsyncRefuses: the layer has no line; what is beyond its max is refused, and whose client goes
// makes room.
func TestAsyncRefuses(t *testing.T) {
	w := startLab(t, Options{Layers: LayerOptions{Async: 2}}, Route{Path: "/x", Layer: Async, Lab: &Lab{lab.Sleep, time.Hour}})
	first, second := w.ask("/x"), w.ask("/x")
	w.await(Async, 2, 0, 0)
	status, body, h := w.ask("/x").answer(t)
	if status != 503 || h.Get("Retry-After") != "1" || !strings.Contains(body, "as many requests are on the async layer as may (layers.async.max)") {
		t.Errorf("%d %s", status, body)
	}
	w.await(Async, 2, 0, 1)
	first.Close()
	w.await(Async, 1, 0, 1)
	third := w.ask("/x")
	w.await(Async, 2, 0, 1)
	second.Close()
	third.Close()
	w.await(Async, 0, 0, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fates[RefusedFull] != 1 || w.fates[GoneRunning] != 3 {
		t.Errorf("%v", w.fates)
	}
}

// TestSyncLine: so many run, so many wait in order, the others are refused; who waits leaves with
// its client, or with its time.
func TestSyncLine(t *testing.T) {
	w := startLab(t, Options{Layers: LayerOptions{Sync: 1, Waiting: 2}},
		Route{Path: "/long", Layer: Sync, Lab: &Lab{lab.Block, time.Hour}}, Route{Path: "/short", Layer: Sync, Lab: &Lab{lab.Block, time.Millisecond}})
	first := w.ask("/long")
	w.await(Sync, 1, 0, 0)
	gone := w.ask("/short")
	w.await(Sync, 1, 1, 0)
	stays := w.ask("/short")
	w.await(Sync, 1, 2, 0)
	if status, body, _ := w.ask("/short").answer(t); status != 503 || !strings.Contains(body, "layers.sync.max") {
		t.Errorf("%d %s", status, body)
	}
	w.await(Sync, 1, 2, 1)
	gone.Close()
	w.await(Sync, 1, 1, 1)
	if status, body, _ := w.ask("/short", "X-Request-Timeout: 10ms\r\n").answer(t); status != 504 ||
		!strings.Contains(body, "route /short could not start within 10ms (X-Request-Timeout), all places of the sync layer are taken") {
		t.Errorf("%d %s", status, body)
	}
	first.Close()
	if status, body, _ := stays.answer(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	w.await(Sync, 0, 0, 1)
}

// TestComputeRoutesHoldPermits: beside inference, and one at a time.
func TestComputeRoutesHoldPermits(t *testing.T) {
	w := startLab(t, Options{}, Route{Path: "/wrong", Layer: Compute, Lab: &Lab{lab.Sleep, time.Hour}})
	first := w.ask("/wrong")
	w.await(Compute, 1, 0, 0)
	c := dial(t, w.address)
	c.send(t, post("/predict", features))
	w.await(Compute, 1, 1, 0)
	if status, body, _ := w.ask("/wrong").answer(t); status != 503 || !strings.Contains(body, "queue.max_requests") {
		t.Errorf("%d %s", status, body)
	}
	w.await(Compute, 1, 1, 1)
	first.Close()
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// TestRoutesEndInTime: the request clock, and the client's own deadline.
func TestRoutesEndInTime(t *testing.T) {
	var routes []Route
	for l := Async; l < Layers; l++ {
		for k := range 3 {
			routes = append(routes, Route{Path: fmt.Sprintf("/%s%d", l, k), Layer: l, Lab: &Lab{lab.Kind(k), time.Hour}})
		}
	}
	w := startLab(t, Options{RequestTimeout: 40 * time.Millisecond}, routes...)
	for _, r := range routes {
		if status, body, _ := w.ask(r.Path).answer(t); status != 504 || !strings.Contains(body, "route "+r.Path+" gave no answer within timeouts.request, which is 40ms") {
			t.Errorf("%s: %d %s", r.Path, status, body)
		}
		if status, body, _ := w.ask(r.Path, "X-Request-Timeout: 5ms\r\n").answer(t); status != 504 || !strings.Contains(body, "X-Request-Timeout, which is 5ms") {
			t.Errorf("%s: %d %s", r.Path, status, body)
		}
	}
	if status, body, _ := w.ask("/async0", "X-Request-Timeout: soon\r\n").answer(t); status != 400 {
		t.Errorf("%d %s", status, body)
	}
}

// TestWrongLayersAreNamed once each, by what a request did.
func TestWrongLayersAreNamed(t *testing.T) {
	w := startLab(t, Options{}, Route{Path: "/x", Layer: Compute, Lab: &Lab{lab.Sleep, 30 * time.Millisecond}},
		Route{Path: "/right", Layer: Sync, Lab: &Lab{lab.Block, 30 * time.Millisecond}})
	for range 3 {
		w.ask("/x").answer(t)
		w.ask("/right").answer(t)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.misplaced) != 1 || !strings.HasPrefix(w.misplaced[0], "route /x waited 100 % of ") || !strings.HasSuffix(w.misplaced[0], " on the compute layer: declare it sync") {
		t.Errorf("%q", w.misplaced)
	}
}

func TestMisplaced(t *testing.T) {
	at := time.Unix(1000, 0)
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	trace := func(took, waited, used int, blocked bool) lab.Trace {
		return lab.Trace{Began: at, Ended: at.Add(ms(took)), Waited: ms(waited), Used: ms(used), Blocked: blocked}
	}
	for _, c := range []struct {
		l     Layer
		trace lab.Trace
		want  string
	}{
		{Compute, trace(120, 118, 2, false), "waited 98 % of 120ms on the compute layer: declare it sync"},
		{Compute, trace(120, 120, 0, true), "waited 100 % of 120ms on the compute layer: declare it sync"},
		{Compute, trace(120, 60, 60, false), ""},
		{Compute, trace(10, 10, 0, false), ""},
		{Compute, trace(120, 0, 120, false), ""},
		{Async, trace(120, 120, 0, false), ""},
		{Async, trace(120, 120, 0, true), "blocked a thread for 100 % of 120ms on the async layer: declare it sync"},
		{Async, trace(1000, 0, 100, false), "used a core for 100ms of 1s on the async layer: declare it compute"},
		{Async, trace(1000, 0, 49, false), ""},
		{Sync, trace(120, 120, 0, true), ""},
		{Sync, trace(120, 0, 49, false), ""},
		{Sync, trace(120, 0, 60, false), "used a core for 60ms of 120ms on the sync layer: declare it compute"},
		{Sync, lab.Trace{}, ""},
	} {
		if got := misplaced(c.l, &c.trace); got != c.want {
			t.Errorf("%s, %+v: %q, want %q", c.l, c.trace, got, c.want)
		}
	}
}

// TestRoutesHaveClasses: the token that is asked for is that of the route's class.
func TestRoutesHaveClasses(t *testing.T) {
	var routes []Route
	classes := []string{ipc.ClassInfer, ipc.ClassTasks, ipc.ClassControl, ipc.ClassDocs}
	for _, class := range classes {
		routes = append(routes, Route{Path: "/" + class + "-route", Class: class, Lab: &Lab{lab.Sleep, time.Millisecond}})
	}
	a := newAPI(t, Options{Tokens: tokens, Routes: routes})
	holders := map[string]string{ipc.ClassInfer: "infer-old", ipc.ClassTasks: "tasks", ipc.ClassControl: "control", ipc.ClassDocs: "docs"}
	for _, class := range classes {
		for other, token := range holders {
			ctx := request("/"+class+"-route", "")
			ctx.Request.Header.SetMethod("GET")
			ctx.Request.Header.Set("Authorization", "Bearer "+token)
			a.Handle(ctx)
			if want := map[bool]int{true: 200, false: 403}[class == other]; ctx.Response.StatusCode() != want {
				t.Errorf("class %s with the token of %s: %d, want %d", class, other, ctx.Response.StatusCode(), want)
			}
		}
	}
	if !slices.ContainsFunc(a.operations(), func(d documented) bool { return d.path == "/docs-route" && d.guarded && d.tag == tagRoutes }) {
		t.Error("a route is not documented as guarded")
	}
}
