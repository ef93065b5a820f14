package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"preforkd/internal/testkit"
)

// echo answers with the input.
func echo(_ context.Context, t *Task) Outcome {
	return Outcome{Result: &Result{Code: 200, Body: t.Body, Size: len(t.Body)}}
}

func TestOutcomes(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		q := s.open(t, nil)
		var fails atomic.Int32
		runner(t, q, func(ctx context.Context, task *Task) Outcome {
			switch string(task.Body) {
			case "bad":
				return Outcome{Error: "it is bad", Result: &Result{Code: 400}}
			case "twice":
				if fails.Add(1) == 1 {
					return Outcome{Error: "not yet", Retry: true}
				}
			}
			return echo(ctx, task)
		})
		for _, c := range []struct {
			body     string
			want     Status
			attempts int
		}{
			{"good", Succeeded, 1},
			{"bad", Failed, 1},
			{"twice", Succeeded, 2},
			{strings.Repeat("large ", 800<<10), Succeeded, 1},
		} {
			name := c.body[:min(len(c.body), 10)]
			v := await(t, q, submit(t, q, Request{Body: []byte(c.body)}), c.want)
			if v.Attempt != c.attempts || v.Created.IsZero() || v.Finished.Before(v.Started) {
				t.Errorf("%s: %d attempts, %+v", name, v.Attempt, v.Record)
			}
			if c.want != Succeeded {
				continue
			}
			other := s.open(t, nil) // any process has it
			if body, err := other.Body(t.Context(), v.Result); err != nil || string(body) != c.body {
				t.Errorf("%s: the result has %d bytes, %v", name, len(body), err)
			}
		}
		n, err := q.Numbers(t.Context())
		if err != nil || n.Depth+n.Running != 0 {
			t.Errorf("%+v, %v", n, err)
		}
	})
}

func TestKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		var runs atomic.Int32
		queues := []*Queue{s.open(t, nil), s.open(t, nil), s.open(t, nil)}
		ask := func() map[ID]bool {
			var wg sync.WaitGroup
			var mu sync.Mutex
			ids := map[ID]bool{}
			for i := range 30 {
				wg.Go(func() {
					id := submit(t, queues[i%3], Request{Body: []byte("x"), Key: "k", Tenant: "t"})
					mu.Lock()
					defer mu.Unlock()
					ids[id] = true
				})
			}
			wg.Wait()
			return ids
		}
		before := ask()
		runner(t, queues[0], func(ctx context.Context, task *Task) Outcome { runs.Add(1); return echo(ctx, task) })
		for id := range before {
			await(t, queues[1], id, Succeeded)
		}
		s.interrupt()
		after := ask()
		for id := range before {
			delete(after, id)
		}
		if len(before) != 1 || len(after) != 0 || runs.Load() != 1 {
			t.Errorf("%d ids before, %d others after, %d runs", len(before), len(after), runs.Load())
		}
		_, _, err := queues[2].Submit(t.Context(), &Request{Model: "m", Body: []byte("y"), Key: "k", Tenant: "t"})
		if !errors.Is(err, ErrKeyReused) {
			t.Errorf("another body: %v", err)
		}
		if id := submit(t, queues[2], Request{Body: []byte("y"), Key: "k", Tenant: "u"}); before[id] {
			t.Error("another tenant has the same task")
		}
	})
}

func TestCancel(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		q := s.open(t, nil)
		queued := submit(t, q, Request{Body: []byte("never")})
		if v, err := q.Cancel(t.Context(), queued); err != nil || v.Status != Cancelled {
			t.Errorf("queued: %s, %v", v.Status, err)
		}
		if _, err := q.Cancel(t.Context(), queued); !errors.Is(err, ErrDone) {
			t.Errorf("twice: %v", err)
		}
		began := make(chan struct{})
		runner(t, q, func(ctx context.Context, task *Task) Outcome {
			if string(task.Body) == "never" {
				t.Error("a cancelled task ran")
			}
			if string(task.Body) == "running" {
				close(began)
				<-ctx.Done()
				return Outcome{Error: context.Cause(ctx).Error()}
			}
			return echo(ctx, task)
		})
		running := submit(t, q, Request{Body: []byte("running")})
		<-began
		if v, err := s.open(t, nil).Cancel(t.Context(), running); err != nil || v.Status != Running {
			t.Errorf("running: %s, %v", v.Status, err)
		}
		await(t, q, running, Cancelled)
		done := submit(t, q, Request{Body: []byte("done")})
		await(t, q, done, Succeeded)
		if _, err := q.Cancel(t.Context(), done); !errors.Is(err, ErrDone) {
			t.Errorf("done: %v", err)
		}
		if _, err := q.Cancel(t.Context(), newID("m", false, "", "")); !errors.Is(err, ErrUnknown) {
			t.Errorf("unknown: %v", err)
		}
	})
}

func TestFull(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		q := s.open(t, func(o *Options) { o.MaxTasks = 3 })
		first := submit(t, q, Request{Key: "k"})
		submit(t, q, Request{})
		submit(t, q, Request{})
		if _, _, err := q.Submit(t.Context(), &Request{Model: "m"}); !errors.Is(err, ErrFull) {
			t.Errorf("a fourth: %v", err)
		}
		if id := submit(t, q, Request{Key: "k"}); id != first {
			t.Errorf("the first once more is %s, it was %s", id, first)
		}
		if _, _, err := q.Submit(t.Context(), &Request{Model: "none"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("another model: %v", err)
		}
	})
}

func TestExpiry(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		q := s.open(t, func(o *Options) { o.ResultTTL = time.Second })
		late := submit(t, q, Request{Wait: time.Millisecond})
		await(t, q, late, Expired)
		runner(t, q, echo)
		kept := submit(t, q, Request{})
		await(t, q, kept, Succeeded)
		if err := testkit.Await(func() bool {
			_, err := q.Get(t.Context(), kept)
			return errors.Is(err, ErrGone)
		}); err != nil {
			_, now := q.Get(t.Context(), kept)
			t.Errorf("after its time: %v", now)
		}
		again := submit(t, q, Request{Key: "k"})
		await(t, q, again, Succeeded)
		if err := testkit.Await(func() bool {
			_, err := q.Get(t.Context(), again)
			return errors.Is(err, ErrGone)
		}); err != nil {
			t.Fatal("the record of a key stays")
		}
		if id := submit(t, q, Request{Key: "k"}); id != again {
			t.Errorf("a key has two ids, %s and %s", again, id)
		}
		await(t, q, again, Succeeded)
	})
}

func TestWorkersThatDie(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		long := func(o *Options) { o.AckWait = time.Minute }
		q := s.open(t, long)
		hang := make(chan *Task)
		runner(t, q, func(ctx context.Context, task *Task) Outcome {
			select {
			case hang <- task:
			case <-ctx.Done():
			}
			<-ctx.Done() // as a worker that is dead says nothing
			return Outcome{Error: "nobody hears this"}
		})
		poison := submit(t, q, Request{Body: []byte("poison")})
		neighbour := ID("")
		for i := range 3 {
			task := <-hang
			if i == 0 {
				neighbour = submit(t, q, Request{Body: []byte("neighbour")})
			}
			if err := q.Return(t.Context(), Returned{ID: task.ID, Ack: task.Ack, Why: "killed by signal 11", Lines: []string{"last words"}, Blame: true}); err != nil {
				t.Fatal(err)
			}
			if i == 2 {
				break
			}
			runner(t, s.open(t, long), func(ctx context.Context, task *Task) Outcome {
				if string(task.Body) == "neighbour" {
					return echo(ctx, task)
				}
				select {
				case hang <- task:
				case <-ctx.Done():
				}
				<-ctx.Done()
				return Outcome{Error: "nobody hears this"}
			})
		}
		v := await(t, q, poison, Dead)
		if v.Crashes != 3 || !strings.Contains(v.Error, "it has ended 3 workers") || len(v.Lines) != 1 {
			t.Errorf("%+v", v.Record)
		}
		runner(t, s.open(t, long), echo) // the others are as good as dead
		await(t, q, neighbour, Succeeded)
		if parked, err := q.Parked(t.Context(), 10); err != nil || len(parked) != 1 || parked[0].ID != poison {
			t.Errorf("parked: %v, %v", parked, err)
		}
		if err := q.Retry(t.Context(), poison); err != nil {
			t.Fatal(err)
		}
		await(t, q, poison, Succeeded)
		if parked, err := q.Parked(t.Context(), 10); err != nil || len(parked) != 0 {
			t.Errorf("parked after all: %v, %v", parked, err)
		}
	})
}

func TestSilentRunIsOvertaken(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		first := s.open(t, func(o *Options) { o.AckWait = time.Second })
		stalled, wake := make(chan *Task), make(chan struct{})
		runner(t, first, func(_ context.Context, task *Task) Outcome {
			stalled <- task
			<-wake
			return Outcome{Result: &Result{Code: 200, Body: []byte("late"), Size: 4}}
		})
		id := submit(t, first, Request{Body: []byte("x")})
		task := <-stalled
		r, err := first.get()
		if err != nil {
			t.Fatal(err)
		}
		r.nc.Publish(task.Ack, []byte("-NAK")) //nolint:errcheck // as after AckWait without a heartbeat
		second := s.open(t, nil)
		runner(t, second, echo)
		v := await(t, second, id, Succeeded)
		close(wake)
		for range 3 { // what came late changes nothing
			again, err := second.Get(t.Context(), id)
			if err != nil || again.Attempt != 2 || string(again.Result.Body) != "x" {
				t.Fatalf("%+v, %v; it was %+v", again.Record, err, v.Record)
			}
		}
	})
}

// TestDeathBeforeTheAcknowledgement has a run whose outcome is written and whose message is not
// acknowledged: it comes again, and is not run again.
func TestDeathBeforeTheAcknowledgement(t *testing.T) {
	s := single(t)
	q := s.open(t, func(o *Options) { o.AckWait = 300 * time.Millisecond })
	var runs atomic.Int32
	written, stay := make(chan struct{}), make(chan struct{})
	q.concluded = func(ID) { close(written); <-stay }
	runner(t, q, func(ctx context.Context, task *Task) Outcome { runs.Add(1); return echo(ctx, task) })
	id := submit(t, q, Request{Body: []byte("x")})
	<-written
	other := s.open(t, func(o *Options) { o.AckWait = 300 * time.Millisecond })
	runner(t, other, func(ctx context.Context, task *Task) Outcome { runs.Add(1); return echo(ctx, task) })
	if err := testkit.Await(func() bool { n, err := other.Numbers(t.Context()); return err == nil && n.Depth+n.Running == 0 }); err != nil {
		t.Error("the message stays")
	}
	close(stay)
	if v := await(t, other, id, Succeeded); v.Attempt != 1 || runs.Load() != 1 {
		t.Errorf("%d attempts, %d runs", v.Attempt, runs.Load())
	}
}

func TestLeavingIsNoAttempt(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		q := s.open(t, nil)
		id := ID("")
		for range 5 {
			began := make(chan struct{})
			stop := runner(t, q, func(ctx context.Context, _ *Task) Outcome {
				close(began)
				<-ctx.Done()
				return Outcome{Error: context.Cause(ctx).Error()}
			})
			if id == "" {
				id = submit(t, q, Request{Body: []byte("x")})
			}
			<-began
			stop()
		}
		runner(t, q, echo)
		if v := await(t, q, id, Succeeded); v.Attempt != 1 || v.Lost+v.Crashes != 0 {
			t.Errorf("%+v", v.Record)
		}
	})
}

func TestTimeLimit(t *testing.T) {
	s := single(t)
	q := s.open(t, func(o *Options) { o.MaxRun = 50 * time.Millisecond })
	runner(t, q, func(ctx context.Context, _ *Task) Outcome {
		<-ctx.Done()
		return Outcome{Error: "stopped"}
	})
	if v := await(t, q, submit(t, q, Request{}), Failed); !strings.Contains(v.Error, "tasks.timeout") {
		t.Errorf("%s", v.Error)
	}
}

func TestModelThatIsNotServedAnyMore(t *testing.T) {
	s := single(t)
	q := s.open(t, nil)
	id := submit(t, q, Request{})
	q.Serve([]string{"other"})
	if err := testkit.Await(func() bool { r := q.ready.Load(); return r != nil && r.models["other"] != nil }); err != nil {
		t.Fatal(err)
	}
	if err := q.Abandon(t.Context(), func(m string) bool { return m == "other" }); err != nil {
		t.Fatal(err)
	}
	if v := await(t, q, id, Failed); !strings.Contains(v.Error, `model "m" is not served any more`) {
		t.Errorf("%s", v.Error)
	}
}

// TestNothingIsLost interrupts the queue under load, and counts.
func TestNothingIsLost(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		q := s.open(t, func(o *Options) { o.AckWait = 2 * time.Second })
		var runs atomic.Int64
		for range 3 {
			runner(t, s.open(t, func(o *Options) { o.AckWait = 2 * time.Second }), func(ctx context.Context, task *Task) Outcome { runs.Add(1); return echo(ctx, task) })
		}
		var mu sync.Mutex
		accepted := map[ID]string{}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for client := range 4 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					body := fmt.Sprintf("%d/%d", client, i)
					id, _, err := q.Submit(t.Context(), &Request{Model: "m", Body: []byte(body), Key: body})
					if err != nil {
						continue
					}
					mu.Lock()
					accepted[id] = body
					mu.Unlock()
				}
			})
		}
		for range 3 {
			n := len(accepted)
			if err := testkit.Await(func() bool { mu.Lock(); defer mu.Unlock(); return len(accepted) > n+20 }); err != nil {
				t.Fatal("nothing is accepted any more")
			}
			s.interrupt()
		}
		cancel()
		wg.Wait()
		for id, body := range accepted {
			v := await(t, q, id, Succeeded)
			if !bytes.Equal(v.Result.Body, []byte(body)) {
				t.Errorf("task %s: %q", id, v.Result.Body)
			}
		}
		t.Logf("accepted %d, finished %d, lost 0, run twice %d", len(accepted), len(accepted), runs.Load()-int64(len(accepted)))
	})
}
