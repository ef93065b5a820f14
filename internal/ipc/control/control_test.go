package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

// limit is how long a test waits for what must come.
const limit = 30 * time.Second

// TestMain plays the worker: it answers, asks back, and hangs when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("CONTROL_CHILD") == "" {
		os.Exit(m.Run())
	}
	var c *Conn
	c, err := New(3, map[string]Handler{
		"double": double,
		"hang":   func(context.Context, json.RawMessage) (any, error) { select {} },
		"ask back": func(ctx context.Context, body json.RawMessage) (any, error) {
			var answer int
			err := c.Call(ctx, "double", body, &answer)
			return answer, err
		},
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := c.Run(context.Background()); !errors.Is(err, ErrEnded) {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func double(_ context.Context, body json.RawMessage) (any, error) {
	var n int
	err := json.Unmarshal(body, &n)
	return 2 * n, err
}

func pair(t testing.TB) (int, int) {
	t.Helper()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// side is a running end of a channel.
type side struct {
	*Conn
	ended chan error // what Run returned
}

func run(t testing.TB, fd int, handlers map[string]Handler) side {
	t.Helper()
	c, err := New(fd, handlers)
	if err != nil {
		t.Fatal(err)
	}
	s := side{c, make(chan error, 1)}
	go func() { s.ended <- c.Run(context.Background()) }()
	t.Cleanup(func() { c.Close() })
	return s
}

func (s side) end(t testing.TB) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(limit):
		t.Fatal("Run did not return")
		return nil
	}
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func TestBothSidesAsk(t *testing.T) {
	a, b := pair(t)
	handlers := map[string]Handler{"double": double}
	left, right := run(t, a, handlers), run(t, b, handlers)
	var asking sync.WaitGroup
	for i := range 8 { // fewer than maxHandlers
		s := []side{left, right}[i%2]
		asking.Go(func() {
			for n := range 300 {
				var got int
				if err := s.Call(soon(t), "double", n, &got); err != nil || got != 2*n {
					t.Errorf("%d: %d, %v", n, got, err)
					return
				}
			}
		})
	}
	asking.Wait()
	left.Close()
	if err := left.end(t); err != nil {
		t.Errorf("the side that closed: %v", err)
	}
	if err := right.end(t); !errors.Is(err, ErrEnded) || !errors.Is(right.Err(), ErrEnded) {
		t.Errorf("the other side: %v, %v", err, right.Err())
	}
	if err := left.Call(soon(t), "double", 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a call on a closed channel: %v", err)
	}
	if err := left.Run(soon(t)); err == nil {
		t.Error("it ran twice")
	}
}

func TestErrorsCross(t *testing.T) {
	a, b := pair(t)
	failure := &ipc.Failure{Exit: ipc.ExitBoot, What: "load model m: no\nsuch file", Try: "put it there"}
	run(t, a, map[string]Handler{
		"failure": func(context.Context, json.RawMessage) (any, error) {
			return nil, fmt.Errorf("somewhere: %w", failure)
		},
		"error": func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("not today") },
		"long":  func(context.Context, json.RawMessage) (any, error) { return make([]byte, MaxMessage), nil },
	})
	c := run(t, b, nil)

	err := c.Call(soon(t), "failure", nil, nil)
	f, ok := err.(*ipc.Failure)
	if !ok || *f != *failure {
		t.Errorf("%#v", err)
	}
	if err := c.Call(soon(t), "error", nil, nil); err == nil || err.Error() != "ask for error: not today" {
		t.Error(err)
	}
	if err := c.Call(soon(t), "nobody's", nil, nil); !errors.Is(err, ErrUnknownKind) {
		t.Error(err)
	}
	if err := c.Call(soon(t), "long", nil, nil); err == nil || !strings.Contains(err.Error(), "encode the reply") {
		t.Error(err)
	}
	if err := c.Call(soon(t), "error", make([]byte, MaxMessage), nil); err == nil || !strings.Contains(err.Error(), "65536 are possible") {
		t.Error(err)
	}
	for _, kind := range []string{"", kindReply, kindRefusal} {
		if err := c.Call(soon(t), kind, nil, nil); err == nil {
			t.Errorf("kind %q was asked for", kind)
		}
	}
	if err := c.Call(soon(t), "error", func() {}, nil); err == nil {
		t.Error("a function was sent")
	}
}

// TestDeadlineCrosses: the handler's context ends about when the asker's does, and a
// late reply disturbs nobody.
func TestDeadlineCrosses(t *testing.T) {
	a, b := pair(t)
	told, gaveUp := make(chan error, 1), make(chan struct{})
	run(t, a, map[string]Handler{
		"slow": func(ctx context.Context, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			told <- ctx.Err()
			<-gaveUp // both contexts end at about the same time
			return "late", nil
		},
		"double": double,
	})
	c := run(t, b, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "slow", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(gaveUp)
	if err := <-told; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the handler: %v", err)
	}
	var n int
	if err := c.Call(soon(t), "double", 4, &n); err != nil || n != 8 {
		t.Errorf("after the late reply: %d, %v", n, err)
	}
	if err := c.Call(soon(t), "double", 4, new(string)); err == nil || !strings.Contains(err.Error(), "decode the reply") {
		t.Error(err)
	}
}

// TestStoppedReceiver: the other side reads nothing, as under SIGSTOP. Calls end with
// their contexts, also those that wait behind another writer, and the channel is whole
// afterwards.
func TestStoppedReceiver(t *testing.T) {
	a, b := pair(t)
	c := run(t, b, nil)
	ctx, cancel := context.WithCancelCause(context.Background())
	var waiting sync.WaitGroup
	var errs [64]error
	for i := range errs {
		waiting.Go(func() { errs[i] = c.Call(ctx, "double", strings.Repeat(" ", MaxMessage/2), nil) })
	}
	for { // some are in the buffer, which has room for a few of them; one waits for room, the rest for it
		n, err := unix.IoctlGetInt(a, unix.SIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if n > MaxMessage && len(c.writing) == 1 {
			break
		}
		runtime.Gosched()
	}
	reason := errors.New("no patience")
	cancel(reason)
	waiting.Wait()
	for _, err := range errs {
		if !errors.Is(err, reason) {
			t.Errorf("%v", err)
		}
	}
	run(t, a, map[string]Handler{"double": double, "size": func(_ context.Context, body json.RawMessage) (any, error) {
		return len(body), nil
	}})
	var n int
	var err error
	for err = ErrBusy; errors.Is(err, ErrBusy); { // while it works off what it finds
		err = c.Call(soon(t), "size", "four", &n)
	}
	if err != nil || n != 6 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestTooManyRequests(t *testing.T) {
	a, b := pair(t)
	free := make(chan struct{})
	var running atomic.Int32
	run(t, a, map[string]Handler{"wait": func(context.Context, json.RawMessage) (any, error) {
		running.Add(1)
		<-free
		return nil, nil
	}})
	c := run(t, b, nil)
	var asked sync.WaitGroup
	for range maxHandlers {
		asked.Go(func() {
			if err := c.Call(soon(t), "wait", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for running.Load() < maxHandlers {
		runtime.Gosched()
	}
	if err := c.Call(soon(t), "wait", nil, nil); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	close(free)
	asked.Wait()
	if err := c.Call(soon(t), "wait", nil, nil); err != nil {
		t.Errorf("when they had returned: %v", err)
	}
}

// TestFloodsDoNotBlock: both sides ask far more than both may handle, with messages
// that fill the buffers; calls go on being answered, and in the end every call returns.
func TestFloodsDoNotBlock(t *testing.T) {
	a, b := pair(t)
	big := strings.Repeat("x", MaxMessage/2)
	handlers := map[string]Handler{"echo": func(_ context.Context, body json.RawMessage) (any, error) { return body, nil }}
	sides := []side{run(t, a, handlers), run(t, b, handlers)}
	const enough = 100
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	var answered atomic.Int32
	var asking sync.WaitGroup
	for i := range 2 * 3 * maxHandlers {
		asking.Go(func() {
			for ctx.Err() == nil {
				err := sides[i%2].Call(ctx, "echo", big, nil)
				if err == nil && answered.Add(1) == enough {
					cancel()
				}
				if err != nil && !errors.Is(err, ErrBusy) && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	asking.Wait()
	if n := answered.Load(); n < enough {
		t.Errorf("%d calls were answered, want %d", n, enough)
	}
	for _, s := range sides {
		if err := s.Call(soon(t), "echo", 1, nil); err != nil && !errors.Is(err, ErrBusy) {
			t.Errorf("afterwards: %v", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(-1, nil); err == nil {
		t.Error("no descriptor")
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	if _, err := New(p[0], nil); err == nil {
		t.Error("a pipe")
	}
	if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("the descriptor that New took over: %v", err)
	}
}

// TestNothingIsLeft: descriptors that come along are dropped, and a channel that ended
// leaves neither descriptors nor goroutines behind.
func TestNothingIsLeft(t *testing.T) {
	descriptors := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before, goroutines := descriptors(), runtime.NumGoroutine()
	for range 10 {
		a, b := pair(t)
		c, err := New(a, map[string]Handler{"double": double})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Run(context.Background()) }()
		if err := unix.Sendmsg(b, []byte(`{"kind":"double","id":1,"body":2}`), unix.UnixRights(b, b), nil, 0); err != nil {
			t.Fatal(err)
		}
		await(t, b)
		unix.Close(b)
		<-ended
	}
	if after := descriptors(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	for end := time.Now().Add(limit); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines before, %d after", goroutines, runtime.NumGoroutine())
		}
	}
}

func BenchmarkCall(b *testing.B) {
	x, y := pair(b)
	run(b, x, map[string]Handler{"double": double})
	c := run(b, y, nil)
	b.ReportAllocs()
	for b.Loop() {
		var n int
		if err := c.Call(context.Background(), "double", 1, &n); err != nil {
			b.Fatal(err)
		}
	}
}
