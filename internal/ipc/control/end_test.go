package control

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
