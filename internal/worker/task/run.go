package task

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Task is what a runner gives out.
type Task struct {
	ID      ID
	Ack     string // the subject by which its message is acknowledged
	Attempt int
	Request
	Deadline time.Time
}

// Outcome is how a run has ended. With neither a result nor an error it was given back: the task
// runs again, and this run does not count.
type Outcome struct {
	Result *Result
	Error  string // why it failed; the result may say more
	Retry  bool   // that may be otherwise the next time
}

// Runner runs tasks, one at a time.
type Runner struct {
	Queue *Queue
	// May waits until a task may begin, and returns what ends that; nil: any time. An error ends it.
	May func(ctx context.Context) (done func(), err error)
	// Do runs a task. When ctx ends, its cause says why nobody waits for it any more.
	Do func(ctx context.Context, t *Task) Outcome
	// Began is told of a task before it runs, and returns what is called after; nil: nobody.
	Began func(t *Task) (ended func())
	// Suspects says that tasks which have ended a worker run here.
	Suspects bool

	next int // the model to begin with
}

// Causes of the end of a run.
var (
	ErrCancelled = errors.New("the task was cancelled")
	errLate      = errors.New("the task has taken longer than tasks.timeout")
	errOvertaken = errors.New("another run of the task has taken its place")
	// ErrLeaving is the cause of the end of what runs when the worker leaves.
	ErrLeaving = errors.New("the worker leaves")
)

// idleLook is how often a runner looks for work that nobody has announced: retries whose time has
// come, and tasks whose worker has vanished.
const idleLook = 500 * time.Millisecond

// Run runs tasks until ctx ends. What runs then goes on until hurry ends, and is then given back.
func (r *Runner) Run(ctx, hurry context.Context) {
	q := r.Queue
	wake := make(chan struct{}, 1)
	q.mu.Lock()
	q.wakers[wake] = true
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.wakers, wake)
		q.mu.Unlock()
	}()
	for ctx.Err() == nil {
		done, err := r.may(ctx)
		if err != nil {
			return
		}
		ran := r.one(ctx, hurry)
		done()
		if ran {
			continue
		}
		select {
		case <-wake:
		case <-time.After(idleLook):
		case <-ctx.Done():
		}
	}
}

func (r *Runner) may(ctx context.Context) (func(), error) {
	if r.May == nil {
		return func() {}, ctx.Err()
	}
	return r.May(ctx)
}

// one fetches a task and runs it; false: there is none.
func (r *Runner) one(ctx, hurry context.Context) bool {
	have, err := r.Queue.get()
	if err != nil || !have.nc.IsConnected() {
		return false
	}
	msg := r.fetch(ctx, have)
	if msg == nil {
		return false
	}
	r.handle(hurry, have, msg)
	return true
}

// fetch takes the next message: those of high priority first, of each model in turn. It never takes
// one ahead.
func (r *Runner) fetch(ctx context.Context, have *ready) jetstream.Msg {
	r.Queue.mu.Lock()
	names := r.Queue.models
	r.Queue.mu.Unlock()
	r.next++
	for prio := range 2 {
		for i := range names {
			m := have.models[names[(r.next+i)%len(names)]]
			if m == nil || ctx.Err() != nil {
				continue
			}
			batch, err := m.consumers[prio].FetchNoWait(1)
			if err != nil {
				continue
			}
			for msg := range batch.Messages() {
				return msg
			}
		}
	}
	return nil
}

// handle decides what becomes of a message, and runs its task if it shall be.
func (r *Runner) handle(hurry context.Context, have *ready, msg jetstream.Msg) {
	q := r.Queue
	id, ok := ParseID(msg.Subject()[min(len(q.Prefix)+3, len(msg.Subject())):])
	of, err := metaOf(msg.Headers())
	if !ok || err != nil {
		q.Log.Error("message of the task queue is no task; it is removed", "subject", msg.Subject(), "err", err)
		_ = msg.Term()
		return
	}
	for {
		v, err := have.read(hurry, q, id)
		if err != nil {
			_ = msg.NakWithDelay(again)
			return
		}
		next, verdict := q.judge(v, of, time.Now())
		switch verdict {
		case drop:
			dropBlob(have.inputs, of.Object)
			ack(msg)
			return
		case later:
			_ = msg.NakWithDelay(max(time.Until(v.NextAt), time.Millisecond))
			return
		case end:
			err = q.finish(hurry, have, id, of, v, next, msg.Data())
		case start:
			if !r.Suspects && next.Crashes > 0 {
				_ = msg.NakWithDelay(idleLook)
				return
			}
			next.Owner.Ack = msg.Reply()
			if v, err = have.write(hurry, q, id, v, next); err == nil {
				r.run(hurry, have, msg, id, of, v)
				return
			}
		}
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			_ = msg.NakWithDelay(again)
			return
		}
		ack(msg)
		return
	}
}

// ack tells the queue that a message is done. Where that does not arrive the message comes again,
// and its record says so.
func ack(msg jetstream.Msg) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	_ = msg.DoubleAck(ctx)
}

// run runs a task whose record says that it runs here.
func (r *Runner) run(hurry context.Context, have *ready, msg jetstream.Msg, id ID, of meta, v version) {
	q := r.Queue
	limit := min(time.Until(of.Deadline), q.MaxRun)
	ctx, cancel := context.WithCancelCause(hurry)
	timer := time.AfterFunc(limit, func() { cancel(errLate) })
	defer timer.Stop()
	q.mu.Lock()
	q.cancels[id] = cancel
	q.mu.Unlock()
	t := &Task{ID: id, Ack: msg.Reply(), Attempt: v.Attempt, Deadline: of.Deadline, Request: Request{
		Model: id.Model(), Version: of.Version, Kind: of.Kind, Header: of.Header, Body: msg.Data(),
	}}
	var beat sync.WaitGroup
	beating, stop := context.WithCancel(ctx)
	beat.Go(func() { q.beat(beating, cancel, have, msg, id, v.number) })
	outcome := r.do(ctx, have, of, t)
	cause := context.Cause(ctx)
	stop()
	beat.Wait()
	q.mu.Lock()
	delete(q.cancels, id)
	q.mu.Unlock()
	cancel(nil)
	q.conclude(have, msg, id, of, v, outcome, cause)
}

// do fetches the input of t, and runs it.
func (r *Runner) do(ctx context.Context, have *ready, of meta, t *Task) Outcome {
	if of.Object != "" {
		var err error
		if t.Body, err = getBlob(ctx, have.inputs, of.Object); err != nil {
			return Outcome{Error: "its input cannot be read: " + err.Error(), Retry: !errors.Is(err, ErrGone)}
		}
	}
	if r.Began != nil {
		defer r.Began(t)()
	}
	return r.Do(ctx, t)
}

// beat tells the queue that the task still runs, and looks whether somebody has cancelled it.
func (q *Queue) beat(ctx context.Context, cancel context.CancelCauseFunc, have *ready, msg jetstream.Msg, id ID, number uint64) {
	ticker := time.NewTicker(q.AckWait / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		_ = msg.InProgress()
		v, err := have.read(ctx, q, id)
		switch {
		case err != nil:
		case v.Cancel:
			cancel(ErrCancelled)
		case v.number != number:
			cancel(errOvertaken)
		}
	}
}

// stopRun ends a task that runs here, as somebody has cancelled it.
func (q *Queue) stopRun(id ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cancel := q.cancels[id]; cancel != nil {
		cancel(ErrCancelled)
	}
}
