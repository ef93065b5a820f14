package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

var update = flag.Bool("update", false, "write the golden files")

// service is a Service that a test steers.
type service struct {
	*Log
	status  func(context.Context) (Status, error)
	reload  func(context.Context, ReloadRequest, func(Progress)) (ReloadResult, error)
	scale   func(context.Context, ScaleRequest) (ScaleResult, error)
	back    func(context.Context, RollbackRequest, func(Progress)) (ReloadResult, error)
	up      func(context.Context, UpgradeRequest, func(Progress)) (ReloadResult, error)
	kept    []Generation
	restart func(context.Context, RestartRequest) (RestartResult, error)
	models  []Model
	load    func(ModelRequest, func(string, int64) error) (ModelResult, error)
	health  func(context.Context) Health
	mu      sync.Mutex // guards stopped
	stopped []bool
}

func (s *service) Status(ctx context.Context) (Status, error) { return s.status(ctx) }

func (s *service) Health(ctx context.Context) Health { return s.health(ctx) }

func (s *service) Reload(ctx context.Context, r ReloadRequest, p func(Progress)) (ReloadResult, error) {
	return s.reload(ctx, r, p)
}

func (s *service) Rollback(ctx context.Context, r RollbackRequest, p func(Progress)) (ReloadResult, error) {
	return s.back(ctx, r, p)
}

func (s *service) Upgrade(ctx context.Context, r UpgradeRequest, p func(Progress)) (ReloadResult, error) {
	return s.up(ctx, r, p)
}

func (s *service) Generations(context.Context) ([]Generation, error) { return s.kept, nil }

func (s *service) Scale(ctx context.Context, r ScaleRequest) (ScaleResult, error) {
	return s.scale(ctx, r)
}

func (s *service) Restart(ctx context.Context, r RestartRequest) (RestartResult, error) {
	return s.restart(ctx, r)
}

func (s *service) Models(context.Context) ([]Model, error) { return s.models, nil }

func (s *service) Release(_ context.Context, name string) (ReleaseResult, error) {
	for i := range s.models {
		if m := &s.models[i]; m.Name == name {
			was := m.State
			m.State = "serving"
			return ReleaseResult{Model: name, Released: was == StateQuarantined, Message: name + " is served again"}, nil
		}
	}
	return ReleaseResult{}, usage("there is no model "+name, "name another")
}

func (s *service) Load(_ context.Context, r ModelRequest, upload func(string, int64) error) (ModelResult, error) {
	return s.load(r, upload)
}

func (s *service) Unload(_ context.Context, r ModelRequest) (ModelResult, error) {
	return s.load(r, nil)
}

func (s *service) Tasks(_ context.Context, o ipc.TaskOrder) (ipc.TaskAnswer, error) {
	return ipc.TaskAnswer{Message: o.Do + " " + o.ID, Tasks: []ipc.TaskState{{ID: "m.hi.x", Status: "queued"}}}, nil
}

func (s *service) Stop(_ context.Context, quick bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = append(s.stopped, quick)
	return nil
}

func (s *service) Events(ctx context.Context, after uint64, follow bool) iter.Seq[Event] {
	return s.Log.Events(ctx, after, follow)
}

// serve runs a server until the test ends, and checks that it leaves nothing behind.
func serve(t *testing.T, s *service) (path string, end func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	path = filepath.Join(t.TempDir(), "run", "admin.sock")
	server, err := openAt(path, s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
		if err := testkit.Await(func() bool { return runtime.NumGoroutine() <= before }); err != nil {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	})
	t.Cleanup(end)
	return path, end
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func checkFailure(t *testing.T, err error, exit int, contains string) {
	t.Helper()
	var f *ipc.Failure
	if !errors.As(err, &f) || f.Exit != exit || !strings.Contains(f.Error(), contains) {
		t.Errorf("%#v, %v; want exit %d and %q", err, err, exit, contains)
	}
}

func example() Status {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	slot := func(n int) *int { return &n }
	stalled := 0.31
	return Status{
		Time: at, Version: "1.2.3", PID: 4242, Generation: 7, Uptime: Duration(75 * time.Hour),
		Listen: []string{"127.0.0.1:8000", "unix:/run/preforkd/http.sock"},
		Pools: []Pool{{Name: "main", Size: 3, Configured: 2, Waiting: 12, Oldest: Duration(345 * time.Millisecond), Slots: []Slot{
			{
				Index: 0, State: "ready", PID: 4243, Generation: 7, Age: Duration(75*time.Hour - time.Minute), InFlight: 2,
				RequestsPerSecond: 120.54, P50: Duration(1234 * time.Microsecond), P99: Duration(28765 * time.Microsecond),
				PSS: 45 << 20, Private: 14 << 20, Shared: 60 << 20, Models: []string{"digits/3", "iris/1"},
			},
			{
				Index: 1, State: "draining", Reason: "asked", PID: 4250, Generation: 6, Age: Duration(42 * time.Second), Restarts: 1,
				LastExit: "killed by signal 9; the memory cgroup counts an OOM kill", PSS: 1288490188,
			},
			{Index: 2, State: "failed", Reason: "crash, tried again in 12s", Restarts: 6, LastExit: "exit status 1\x1b[2J"},
		}}, {Name: "tasks", Size: 1, Configured: 1, Slots: []Slot{}}},
		Models: []Model{
			{Name: "digits", Version: "3", State: "serving", Weights: &Weights{Kind: WeightsShared, Shared: 64 << 20, Prepared: 128 << 20, Private: 1 << 20, Workers: 2}},
			{Name: "iris", State: StateQuarantined, Reason: "iris ended 3 workers", Since: &at},
			{Name: "trees", Version: "1", State: "serving", Weights: &Weights{Kind: WeightsGraph, Private: 12 << 20, Workers: 2}},
			{Name: "wide", Version: "2", State: "serving", Weights: &Weights{Kind: WeightsLost, Prepared: 128 << 20, Private: 65 << 20, Workers: 2, Notice: "the keys are others"}},
			{Name: "tiny", Version: "1", State: "serving", Weights: &Weights{Kind: WeightsCopies, Private: -1, Workers: 1}},
		},
		Memory: &Memory{
			Level: "critical", Limit: 512 << 20, By: "/sys/fs/cgroup/memory.max", Used: 490 << 20, Mapped: 20 << 20, Stalled: &stalled, MajorFaults: 812.4, Kills: 2,
			PSS: 300 << 20, Private: 120 << 20, Guard: "auto", Notice: "no worker has grown",
		},
		LastReload: &Reload{Time: at.Add(-time.Hour), Outcome: "rolled back", Reason: "the canary did not become ready: exit status 3", Took: Duration(2134 * time.Millisecond)},
		Events: []Event{
			{ID: 1, Time: at.Add(-2 * time.Hour), Kind: "ready", Text: "worker ready", Slot: slot(0), PID: 4243},
			{ID: 2, Time: at, Kind: "reload", Text: "rolled back:\nthe canary did not become ready"},
		},
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, example()); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/table.txt"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s", b.String())
	}
}

func TestUnitsForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 3 * time.Hour: "3h00m", 50 * time.Hour: "2d02h", -time.Second: "0s",
	} {
		if got := age(Duration(d)); got != want {
			t.Errorf("age %v: %s", d, got)
		}
	}
	for d, want := range map[time.Duration]string{
		850 * time.Microsecond: "850µs", 12345 * time.Microsecond: "12.3ms", 1239 * time.Millisecond: "1.24s", 0: "0s",
		123456 * time.Millisecond: "2m3s", 100 * time.Hour: "100h0m0s",
	} {
		if got := latency(Duration(d)); got != want {
			t.Errorf("latency %v: %s", d, got)
		}
	}
}

func TestDurationIsSeconds(t *testing.T) {
	b, err := json.Marshal(Duration(1500 * time.Millisecond))
	if err != nil || string(b) != "1.5" {
		t.Errorf("%s, %v", b, err)
	}
	for text, want := range map[string]Duration{"0.25": Duration(250 * time.Millisecond), "-1": Duration(-time.Second), "1e300": 0, `"1s"`: 0, "9.3e9": 0} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); d != want || (err != nil) != (want == 0) {
			t.Errorf("%s: %v, %v", text, time.Duration(d), err)
		}
	}
	var d Duration
	if err := json.Unmarshal([]byte("9e9"), &d); err != nil || time.Duration(d).Seconds() > math.MaxInt64/1e9 {
		t.Errorf("%v, %v", d, err)
	}
}

func TestStatusCrosses(t *testing.T) {
	want := example()
	path, _ := serve(t, &service{Log: NewLog(1), status: func(context.Context) (Status, error) { return want, nil }})
	c := dial(t, path)
	for range 3 { // the connection is kept
		got, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Errorf("got\n%s\nwant\n%s", a, b)
		}
	}
}

func TestFailuresCross(t *testing.T) {
	var answer error
	s := &service{
		Log:    NewLog(1),
		status: func(context.Context) (Status, error) { return Status{}, answer },
		reload: func(context.Context, ReloadRequest, func(Progress)) (ReloadResult, error) {
			return ReloadResult{}, answer
		},
	}
	path, _ := serve(t, s)
	c := dial(t, path)
	for _, f := range []*ipc.Failure{
		{Exit: ipc.ExitTryAgain, What: "a reload is under way", Try: "wait"},
		{Exit: ipc.ExitConfig, What: "preforkd.yaml:3: <bad>"},
		{Exit: ipc.ExitBug, What: "x\ny"},
	} {
		answer = fmt.Errorf("wrapped: %w", f)
		_, err := c.Status(t.Context())
		var got *ipc.Failure
		if !errors.As(err, &got) || *got != *f {
			t.Errorf("status: %#v; want %#v", err, f)
		}
		if _, err = c.Reload(t.Context(), ReloadRequest{}, nil); !errors.As(err, &got) || *got != *f {
			t.Errorf("reload: %#v; want %#v", err, f)
		}
	}
	answer = errors.New("plain")
	_, err := c.Status(t.Context())
	checkFailure(t, err, ipc.ExitOther, "plain")
	s.status = func(context.Context) (Status, error) { panic("ours") }
	_, err = c.Status(t.Context())
	checkFailure(t, err, ipc.ExitBug, "ours")
}

func TestReloadStreams(t *testing.T) {
	seen, proceed := make(chan ReloadRequest, 1), make(chan struct{})
	s := &service{Log: NewLog(1), reload: func(_ context.Context, r ReloadRequest, progress func(Progress)) (ReloadResult, error) {
		seen <- r
		progress(Progress{Phase: "canary", Text: "starts", Of: 2})
		<-proceed // the first line must arrive before the reload ends
		progress(Progress{Phase: "bake", Ready: 1, Of: 2})
		return ReloadResult{Outcome: "rolled back", Generation: 3, Took: Duration(time.Second)},
			&ipc.Failure{Exit: ipc.ExitRolledBack, What: "the canary failed", Try: "read its log"}
	}}
	path, _ := serve(t, s)
	var phases []string
	result, err := dial(t, path).Reload(t.Context(), ReloadRequest{DryRun: true, NoWait: true}, func(p Progress) {
		if phases = append(phases, p.Phase); len(phases) == 1 {
			close(proceed)
		}
	})
	checkFailure(t, err, ipc.ExitRolledBack, "the canary failed\n  try: read its log")
	if r := <-seen; !r.DryRun || !r.NoWait {
		t.Errorf("%+v", r)
	}
	if result.Exit != 4 || result.Generation != 3 || result.Took != Duration(time.Second) || !slices.Equal(phases, []string{"canary", "bake"}) {
		t.Errorf("%+v, %v", result, phases)
	}
}

// TestCallerGoes: the service hears of it, and the server outlives it.
func TestCallerGoes(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	s := &service{Log: NewLog(1), reload: func(ctx context.Context, _ ReloadRequest, progress func(Progress)) (ReloadResult, error) {
		progress(Progress{Text: "begun"})
		<-ctx.Done()
		close(gone)
		return ReloadResult{}, ctx.Err()
	}}
	path, _ := serve(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := dial(t, path).Reload(ctx, ReloadRequest{}, func(Progress) { close(begun) })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-gone
}

// TestServiceEnds: those who wait for a reload or for events are told.
func TestServiceEnds(t *testing.T) {
	s := &service{Log: NewLog(10), reload: func(ctx context.Context, _ ReloadRequest, progress func(Progress)) (ReloadResult, error) {
		progress(Progress{Text: "begun"})
		<-ctx.Done()
		return ReloadResult{Outcome: "stopped"}, &ipc.Failure{Exit: ipc.ExitUnavailable, What: "the service stops"}
	}}
	path, end := serve(t, s)
	c := dial(t, path)
	reloaded, followed, both := make(chan error, 1), make(chan error, 1), make(chan struct{}, 2)
	go func() {
		_, err := c.Reload(t.Context(), ReloadRequest{}, func(Progress) { both <- struct{}{} })
		reloaded <- err
	}()
	go func() {
		followed <- c.Events(t.Context(), 0, true, func(Event) error { both <- struct{}{}; return nil })
	}()
	s.Append(Event{Kind: "x"})
	<-both
	<-both
	end()
	checkFailure(t, <-reloaded, ipc.ExitUnavailable, "the service stops")
	if err := <-followed; err != nil {
		t.Error(err)
	}
	_, err := c.Status(t.Context())
	checkFailure(t, err, ipc.ExitUnavailable, "is preforkd running?")
}

func TestStop(t *testing.T) {
	s := &service{Log: NewLog(1)}
	path, _ := serve(t, s)
	c := dial(t, path)
	for _, quick := range []bool{false, true} {
		if err := c.Stop(t.Context(), quick); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(s.stopped, []bool{false, true}) {
		t.Error(s.stopped)
	}
}

func TestDialFailures(t *testing.T) {
	dir := t.TempDir()
	_, err := Dial(filepath.Join(dir, "none"))
	checkFailure(t, err, ipc.ExitUnavailable, "no such file or directory\n  try: is preforkd running?")

	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	_, err = Dial(stale)
	checkFailure(t, err, ipc.ExitUnavailable, "connection refused")

	checkFailure(t, dialFailure("/p", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", os.ErrPermission)}), ipc.ExitPermission, "run it as the user")

	// The stale one is taken over, a live one is not.
	s := &service{Log: NewLog(1)}
	server, err := openAt(stale, s)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if st, err := os.Stat(stale); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	_, err = openAt(stale, s)
	checkFailure(t, err, ipc.ExitUnavailable, "set admin to another path")
	_, err = openAt(filepath.Join(stale, "below", "s"), s)
	checkFailure(t, err, ipc.ExitUnavailable, "not a directory")
}

func TestDirectoryIsPrivate(t *testing.T) {
	path, _ := serve(t, &service{Log: NewLog(1)})
	if st, err := os.Stat(filepath.Dir(path)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestCurl uses the socket as docs show it.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("skipped for want of curl")
	}
	s := &service{
		Log: NewLog(10), status: func(context.Context) (Status, error) { return example(), nil },
		reload: func(_ context.Context, r ReloadRequest, progress func(Progress)) (ReloadResult, error) {
			progress(Progress{Text: fmt.Sprint(r)})
			return ReloadResult{Message: "committed <8>"}, nil
		},
	}
	s.Append(Event{Kind: "ready", Text: "one"})
	s.Append(Event{Kind: "ready", Text: "two"})
	path, _ := serve(t, s)
	for _, c := range []struct {
		args string
		want []string
	}{
		{"http://preforkd/v1/status", []string{`"version":"1.2.3"`, "\n200"}},
		{"-X POST http://preforkd/v1/reload?dry_run=1", []string{`{"progress":{`, `"text":"{true false}"`, "\n" + `{"result":{"exit":0,"message":"committed <8>"`, "\n200"}},
		{"http://preforkd/v1/events?after=1", []string{`{"id":2,`, "\n200"}},
		{"-X POST http://preforkd/v1/stop?quick=1", []string{"{}\n", "\n200"}},
		{"http://preforkd/v1/stop", []string{`"exit":64`, "the method is POST", "\n400"}},
		{"http://preforkd/v2", []string{"no such path", "\n400"}},
		{"http://preforkd/v1/events?after=-1", []string{"after=", "\n400"}},
		{"http://preforkd/v1/events?follow=maybe", []string{"neither 1 nor 0", "\n400"}},
		{"http://preforkd/v1/events?folow=1", []string{"known: after, follow", "\n400"}},
		{"-X POST http://preforkd/v1/stop?quick=1&quick=0", []string{"write it once", "\n400"}},
		{"-d quick=1 http://preforkd/v1/stop", []string{"has no body", "\n400"}},
	} {
		args := append([]string{"-sS", "--max-time", "20", "-w", "\n%{http_code}\n", "--unix-socket", path}, strings.Fields(c.args)...)
		out, err := exec.Command(curl, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v, %s", c.args, err, out)
		}
		for _, w := range c.want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s: %q is not in\n%s", c.args, w, out)
			}
		}
	}
}

func openAt(path string, s Service) (*Server, error) {
	socket, err := Bind(path)
	if err != nil {
		return nil, err
	}
	return Open(socket, s)
}
