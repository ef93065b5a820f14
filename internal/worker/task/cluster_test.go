package task

import (
	"context"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/cluster"
)

// service is a queue's server, or several of them, for tests.
type service struct {
	options Options
	// interrupt ends it, or one of it, untold, and has something in its place where nobody else is.
	interrupt func()
}

// onBoth runs a test on this machine's broker, and on a cluster.
func onBoth(t *testing.T, test func(t *testing.T, s *service)) {
	t.Run("broker", func(t *testing.T) { test(t, single(t)) })
	t.Run("cluster", func(t *testing.T) { test(t, clustered(t)) })
}

func single(t *testing.T) *service {
	t.Helper()
	dir := t.TempDir()
	b := testkit.StartBroker(t, dir)
	return &service{
		options: Options{URL: b.Access.URL(), Token: b.Access.Token, Embedded: true},
		interrupt: func() {
			b.Kill(syscall.SIGKILL)
			b = testkit.StartBroker(t, dir)
		},
	}
}

// clustered is three servers that keep everything three times.
func clustered(t *testing.T) *service {
	t.Helper()
	const token = "a-token-of-this-test"
	c := cluster.Start(t, token)
	return &service{options: Options{URL: c.URL, Token: token, Replicas: cluster.Nodes}, interrupt: c.Kill}
}

// open returns a queue that has been reached, for the model m.
func (s *service) open(t *testing.T, change func(*Options)) *Queue {
	t.Helper()
	o := s.options
	o.Node = "test"
	if change != nil {
		change(&o)
	}
	q := New(o)
	q.Serve([]string{"m"})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := testkit.Await(func() bool { return q.ready.Load() != nil }); err != nil {
		t.Fatal(err)
	}
	return q
}

// runner runs tasks until the test ends, or the function is called that it returns.
func runner(t *testing.T, q *Queue, do func(ctx context.Context, t *Task) Outcome) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hurry, hasten := context.WithCancelCause(context.Background())
	ended := make(chan struct{})
	r := &Runner{Queue: q, Do: do, Suspects: true}
	go func() {
		defer close(ended)
		r.Run(ctx, hurry)
	}()
	stop = func() {
		cancel()
		hasten(ErrLeaving)
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

func submit(t *testing.T, q *Queue, req Request) ID {
	t.Helper()
	req.Model = "m"
	for begun := time.Now(); ; {
		id, _, err := q.Submit(t.Context(), &req)
		if err == nil {
			return id
		}
		if time.Since(begun) > testkit.Limit {
			t.Fatal(err)
		}
	}
}

// await waits until a task is as wanted.
func await(t *testing.T, q *Queue, id ID, want Status) View {
	t.Helper()
	var v View
	var err error
	for begun := time.Now(); time.Since(begun) < testkit.Limit; {
		if v, err = q.Wait(t.Context(), id, 50*time.Millisecond); err == nil && v.Status == want {
			return v
		}
		if err == nil && v.Status.Terminal() {
			break
		}
	}
	t.Fatalf("task %s is %s (%s), %v: %s is wanted", id, v.Status, v.Error, err, want)
	return v
}
