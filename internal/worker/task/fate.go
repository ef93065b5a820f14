package task

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// verdict is what becomes of a message that was fetched.
type verdict uint8

const (
	start verdict = iota // run it
	drop                 // its task has ended
	later                // its time has not come
	end                  // it ends without a run
)

// judge decides about a message by its task's record, and returns what that becomes.
func (q *Queue) judge(v version, of meta, now time.Time) (next Record, _ verdict) {
	next = v.Record
	next.Created, next.Hash, next.Owner, next.NextAt = of.Created, of.Hash, nil, time.Time{}
	finish := func(s Status, format string, args ...any) (Record, verdict) {
		next.Status, next.Finished, next.Error = s, now, fmt.Sprintf(format, args...)
		return next, end
	}
	switch {
	case v.known && v.Status.Terminal(), v.gone && v.at.After(of.Created):
		return next, drop
	case v.Cancel:
		return finish(Cancelled, "it was cancelled")
	case v.Status == Retrying && v.NextAt.After(now):
		return next, later
	case now.After(of.Deadline):
		return finish(Expired, "its time was over before it had succeeded")
	}
	if v.Status == Running { // and its run has ended without a word
		q.Counts.Redelivered.Add(1)
		if next.Lost++; next.Lost >= mostLost {
			return finish(Dead, "%d of its runs have ended without a word, the last on %s", next.Lost, v.Owner)
		}
	}
	if next.Crashes >= q.Crashes {
		return finish(Dead, "%s", v.Error)
	}
	next.Status, next.Attempt, next.Started = Running, next.Attempt+1, now
	next.Owner, next.Error = &Owner{Node: q.Node, PID: os.Getpid()}, ""
	return next, start
}

// String names an owner.
func (o *Owner) String() string {
	if o == nil {
		return "an unknown worker"
	}
	return fmt.Sprintf("%s, process %d", o.Node, o.PID)
}

// conclude writes how a run has ended, unless another run has done so first.
func (q *Queue) conclude(have *ready, msg jetstream.Msg, id ID, of meta, v version, o Outcome, cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), q.AckWait+setupLimit) // the queue may be on its way back
	defer cancel()
	next, delay := q.weigh(v, o, cause, time.Now())
	if next.Result != nil && next.Result.Size > inlineBytes {
		name := fmt.Sprintf("%s.out.%d.%d", id, v.Attempt, v.number) // a late twin cannot overwrite it
		if err := q.insist(ctx, func() error { return putBlob(ctx, have.results, name, next.Result.Body) }); err != nil {
			q.Log.Warn("result of a task not stored; it runs again", "task", id, "err", err)
			_ = msg.NakWithDelay(again)
			return
		}
		next.Result.Object, next.Result.Body = name, nil
	}
	err := q.insist(ctx, func() (err error) {
		if next.Status.Terminal() {
			return q.finish(ctx, have, id, of, v, next, msg.Data())
		}
		_, err = have.write(ctx, q, id, v, next)
		return err
	})
	if errors.Is(err, errMoved) {
		now, readErr := have.read(ctx, q, id)
		switch {
		case readErr != nil:
			_ = msg.NakWithDelay(again)
			return
		case now.Cancel && now.Status == Running && now.number != v.number && now.Attempt == v.Attempt:
			q.conclude(have, msg, id, of, now, o, ErrCancelled) // only that it shall be cancelled was written
			return
		case now.Status == next.Status && now.Finished.Equal(next.Finished) && now.NextAt.Equal(next.NextAt): // by us: the answer was lost
			err = nil
		}
	}
	if errors.Is(err, errMoved) {
		if next.Result != nil {
			dropBlob(have.results, next.Result.Object)
		}
		q.Log.Info("outcome of a task dropped: another run of it counts", "task", id, "attempt", v.Attempt)
		return
	}
	switch {
	case err != nil:
		q.Log.Warn("outcome of a task not written; it runs again", "task", id, "err", err)
		_ = msg.NakWithDelay(again)
	case next.Status.Terminal():
		if q.concluded != nil {
			q.concluded(id)
		}
		q.acks.Go(func() { ack(msg) }) // beside the next task: its record is written
	case delay > 0:
		_ = msg.NakWithDelay(delay)
	default:
		_ = msg.Nak()
		_ = have.nc.Publish(q.Prefix+".wake", nil)
	}
}

// insist does what the queue, which may be on its way back, has not done.
func (q *Queue) insist(ctx context.Context, do func() error) (err error) {
	for {
		if err = do(); err == nil || errors.Is(err, errMoved) {
			return err
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return err
		}
	}
}

// longestRetry bounds the wait before a task that has failed runs again.
const longestRetry = time.Minute

// weigh makes the next record of what has become of a run, and says when to run it again.
func (q *Queue) weigh(v version, o Outcome, cause error, now time.Time) (next Record, delay time.Duration) {
	next = v.Record
	next.Owner, next.Finished = nil, now
	switch {
	case errors.Is(cause, ErrCancelled) || v.Cancel:
		next.Status, next.Error = Cancelled, "it was cancelled while it ran"
	case errors.Is(cause, errLate) && (o.Result == nil || o.Error != ""):
		next.Status, next.Error, next.Result = Failed, fmt.Sprintf("it has taken longer than it may (tasks.timeout %v, or its own deadline)", q.MaxRun), nil
		q.Counts.Failed.Add(1)
	case o.Result == nil && o.Error == "", errors.Is(cause, ErrLeaving) && o.Error != "":
		next.Status, next.NextAt, next.Finished = Retrying, now, time.Time{}
		next.Attempt--
	case o.Error == "":
		next.Status, next.Error, next.Result = Succeeded, "", o.Result
		q.Counts.Finished.Add(1)
	case o.Retry && next.Attempt < q.Attempts:
		delay = min(time.Second<<min(next.Attempt-1, 10), longestRetry)
		delay += rand.N(delay/4 + 1)
		next.Status, next.Error, next.NextAt, next.Finished = Retrying, o.Error, now.Add(delay), time.Time{}
		q.Counts.Retried.Add(1)
	default:
		next.Status, next.Error, next.Result = Failed, o.Error, o.Result
		q.Counts.Failed.Add(1)
	}
	return next, delay
}

// finish writes a terminal record, and what follows from it.
func (q *Queue) finish(ctx context.Context, have *ready, id ID, of meta, v version, next Record, body []byte) error {
	if next.Status == Dead || next.Status == Failed && next.Attempt >= q.Attempts {
		if err := q.park(ctx, have, id, of, body); err != nil {
			return err
		}
	}
	if _, err := have.write(ctx, q, id, v, next); err != nil {
		return err
	}
	if next.Status != Dead && next.Status != Failed {
		dropBlob(have.inputs, of.Object)
	}
	q.event(have, id)
	return nil
}

// park keeps a copy of a task that will not run again, so that an operator can have it run.
func (q *Queue) park(ctx context.Context, have *ready, id ID, of meta, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	msg := nats.NewMsg(q.deadSubject(id))
	msg.Data = body
	head, err := jsonText(of)
	if err != nil {
		return err
	}
	msg.Header.Set(metaHeader, head)
	if _, err := have.js.PublishMsg(ctx, msg); err != nil {
		return unavailable(err)
	}
	return nil
}

// Returned is a task whose worker has ended.
type Returned struct {
	ID    ID
	Ack   string
	Why   string   // how the worker ended
	Lines []string // the last ones that it wrote
	Blame bool     // the worker was ended by what it did; else by an operator, or a machine
}

// Return gives a task back to the queue at once, for its worker, which has ended in it. One that has
// ended too many is parked.
func (q *Queue) Return(ctx context.Context, t Returned) error {
	have, err := q.first(ctx, "")
	if err != nil {
		return err
	}
	v, err := have.read(ctx, q, t.ID)
	if err != nil {
		return err
	}
	if !v.known || v.Status != Running || v.Owner == nil || v.Owner.Ack != t.Ack {
		return nil // it has ended, or runs elsewhere by now
	}
	next := v.Record
	next.Status, next.NextAt, next.Owner = Retrying, time.Now(), nil
	next.Error, next.Lines = fmt.Sprintf("worker %d ended in the middle of it: %s", v.Owner.PID, t.Why), t.Lines
	if t.Blame {
		next.Crashes++
		q.Counts.Crashed.Add(1)
	} else {
		next.Lost++
	}
	if next.Cancel {
		next.Status, next.Finished, next.Error = Cancelled, time.Now(), "it was cancelled while it ran"
	}
	if next.Crashes >= q.Crashes {
		m, err := have.message(ctx, q, t.ID)
		if err != nil {
			return err
		}
		if m != nil {
			next.Status, next.Finished = Dead, time.Now()
			next.Error = fmt.Sprintf("it has ended %d workers; %s", next.Crashes, strings.ToLower(next.Error[:1])+next.Error[1:])
			of, err := metaOf(m.Header)
			if err == nil {
				err = q.finish(ctx, have, t.ID, of, v, next, m.Data)
			}
			if err == nil {
				q.purge(ctx, have, t.ID)
				q.Log.Error("task parked: it ends its workers", "task", t.ID, "crashes", next.Crashes, "err", t.Why)
			}
			return ignoreMoved(err)
		}
	}
	if _, err := have.write(ctx, q, t.ID, v, next); err != nil {
		return ignoreMoved(err)
	}
	if err := have.nc.Publish(t.Ack, []byte("-NAK")); err != nil { // of a message that was given to another process
		return unavailable(err)
	}
	_ = have.nc.FlushTimeout(callLimit)
	q.event(have, t.ID)
	return have.nc.Publish(q.Prefix+".wake", nil)
}

// ignoreMoved: somebody else has decided.
func ignoreMoved(err error) error {
	if errors.Is(err, errMoved) {
		return nil
	}
	return err
}
