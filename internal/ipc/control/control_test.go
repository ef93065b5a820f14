package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
	told := make(chan error, 1)
	run(t, a, map[string]Handler{
		"slow": func(ctx context.Context, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			told <- ctx.Err()
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
// that fill the buffers; every call ends.
func TestFloodsDoNotBlock(t *testing.T) {
	a, b := pair(t)
	big := strings.Repeat("x", MaxMessage/2)
	handlers := map[string]Handler{"echo": func(_ context.Context, body json.RawMessage) (any, error) { return body, nil }}
	sides := []side{run(t, a, handlers), run(t, b, handlers)}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	var done atomic.Int32
	var asking sync.WaitGroup
	for i := range 2 * 3 * maxHandlers {
		asking.Go(func() {
			for ctx.Err() == nil {
				err := sides[i%2].Call(ctx, "echo", big, nil)
				if err == nil {
					done.Add(1)
				} else if !errors.Is(err, ErrBusy) && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	asking.Wait()
	for _, s := range sides {
		if err := s.Call(soon(t), "echo", 1, nil); err != nil && !errors.Is(err, ErrBusy) {
			t.Errorf("afterwards: %v", err)
		}
	}
	if done.Load() == 0 {
		t.Error("no call got through")
	}
}

// TestCloseWaitsForHandlers, whose contexts end.
func TestCloseWaitsForHandlers(t *testing.T) {
	a, b := pair(t)
	entered, left := make(chan struct{}), atomic.Bool{}
	c := run(t, a, map[string]Handler{"wait": func(ctx context.Context, _ json.RawMessage) (any, error) {
		close(entered)
		<-ctx.Done()
		time.Sleep(10 * time.Millisecond) // what Close would miss
		left.Store(true)
		return nil, nil
	}})
	asker := run(t, b, nil)
	answered := make(chan error, 1)
	go func() { answered <- asker.Call(soon(t), "wait", nil, nil) }()
	<-entered
	c.Close()
	if !left.Load() {
		t.Error("Close returned before the handler had")
	}
	if err := <-answered; !errors.Is(err, ErrEnded) {
		t.Errorf("the asker: %v", err)
	}
	c.Close() // twice is once
}

func TestContextEndsRun(t *testing.T) {
	a, b := pair(t)
	c, err := New(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := run(t, b, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Run(ctx); err != nil || !errors.Is(c.Err(), ErrClosed) {
		t.Errorf("%v, %v", err, c.Err())
	}
	<-other.Done()
	if err := other.end(t); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// TestLastWordsAreHeard: the other side answers one request, leaves another unread and
// is gone. The kernel reports a reset before it gives the answer out.
func TestLastWordsAreHeard(t *testing.T) {
	a, b := pair(t)
	c, err := New(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- c.Call(soon(t), "first", nil, nil) }()
	await(t, b)
	packet := make([]byte, MaxMessage)
	n, err := unix.Read(b, packet)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(packet[:n])
	if err != nil {
		t.Fatal(err)
	}
	go func() { second <- c.Call(soon(t), "second", nil, nil) }()
	await(t, b)
	if _, err := unix.Write(b, answer(m.ID, nil, nil)); err != nil {
		t.Fatal(err)
	}
	unix.Close(b)
	if err := c.Run(soon(t)); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Errorf("the request that was answered: %v", err)
	}
	if err := <-second; !errors.Is(err, ErrEnded) {
		t.Errorf("the other one: %v", err)
	}
}

// await waits until fd is readable.
func await(t *testing.T, fd int) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, int(limit.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != 1 {
			t.Fatalf("nothing to read: %v", err)
		}
		return
	}
}

// TestNonsenseEndsTheChannel, and the other side reads why.
func TestNonsenseEndsTheChannel(t *testing.T) {
	for name, c := range map[string]struct{ packet, want string }{
		"garbage":  {"\x00\xff", "what is no message"},
		"no kind":  {`{"id":1}`, "a message of kind"},
		"too long": {`{"kind":"x","id":1,"body":"` + strings.Repeat("x", MaxMessage) + `"}`, "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			defer unix.Close(b)
			s := run(t, a, nil)
			if _, err := unix.Write(b, []byte(c.packet)); err != nil {
				t.Fatal(err)
			}
			if err := s.end(t); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
			packet := make([]byte, MaxMessage)
			n, err := unix.Read(b, packet)
			if err != nil || !strings.Contains(string(packet[:n]), c.want) {
				t.Errorf("told %q, %v", packet[:n], err)
			}
			if n, err := unix.Read(b, packet); n != 0 || err != nil {
				t.Errorf("and then %d bytes, %v", n, err)
			}
		})
	}
	a, b := pair(t)
	defer unix.Close(b)
	s := run(t, a, nil)
	if _, err := unix.Write(b, refuse(0, errors.New("you are odd"))); err != nil {
		t.Fatal(err)
	}
	if err := s.end(t); err == nil || !strings.Contains(err.Error(), "gave the control channel up: you are odd") {
		t.Error(err)
	}
}

func TestStrayAnswersAreDropped(t *testing.T) {
	a, b := pair(t)
	s := run(t, a, map[string]Handler{"double": double})
	defer unix.Close(b)
	for _, packet := range [][]byte{answer(7, nil, nil), answer(7, nil, ErrBusy), []byte(`{"kind":"double","id":1,"body":2}`)} {
		if _, err := unix.Write(b, packet); err != nil {
			t.Fatal(err)
		}
	}
	await(t, b)
	packet := make([]byte, MaxMessage)
	n, err := unix.Read(b, packet)
	if err != nil || string(packet[:n]) != `{"kind":"reply","id":1,"body":4}` || s.Err() != nil {
		t.Errorf("%s, %v, %v", packet[:n], err, s.Err())
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

// TestWorkerDies: a real process answers, asks back and is killed while a call waits.
func TestWorkerDies(t *testing.T) {
	for _, kill := range []bool{true, false} {
		a, b := pair(t)
		f := os.NewFile(uintptr(b), "control")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CONTROL_CHILD=1")
		cmd.ExtraFiles = []*os.File{f}
		cmd.Stdout = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		c := run(t, a, map[string]Handler{"double": double})
		for _, kind := range []string{"double", "ask back"} {
			var n int
			if err := c.Call(soon(t), kind, 21, &n); err != nil || n != 42 {
				t.Errorf("%s: %d, %v", kind, n, err)
			}
		}
		if !kill {
			c.Close() // and it leaves, as TestMain says
			if err := cmd.Wait(); err != nil {
				t.Errorf("the worker: %v", err)
			}
			continue
		}
		pending := make(chan error, 1)
		go func() { pending <- c.Call(soon(t), "hang", nil, nil) }()
		if err := c.Call(soon(t), "double", 1, nil); err != nil { // it lives while "hang" waits
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := <-pending; !errors.Is(err, ErrEnded) {
			t.Errorf("the pending call: %v", err)
		}
		if err := c.end(t); !errors.Is(err, ErrEnded) {
			t.Errorf("Run: %v", err)
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
