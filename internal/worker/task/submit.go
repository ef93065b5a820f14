package task

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Request is what a task shall do: the request that would have been made directly.
type Request struct {
	Model, Version string
	Kind           string            // the direct call
	Header         map[string]string // of it, as far as the call looks at them
	Body           []byte
	Key, Tenant    string        // Idempotency-Key, and who may use it again; empty: none
	Wait           time.Duration // after which nobody wants the outcome; 0: Options.MaxWait
	Low            bool          // it waits for those that are not
}

// How long a submission tries, and each attempt of it. One whose answer is lost is made again under
// the same id, which the queue takes once.
const (
	submitLimit  = 5 * time.Second
	attemptLimit = time.Second
)

// Submit accepts a task: when it returns nil the task is on the disk, to the extent that the queue
// has that. A key that was used for the same request gives its id again, whatever has become of it;
// fresh tells which it was.
func (q *Queue) Submit(ctx context.Context, req *Request) (id ID, fresh bool, err error) {
	if why := q.full(); why != "" {
		q.Counts.Refused.Add(1)
		return "", false, fmt.Errorf("%w: %s", ErrUnavailable, why)
	}
	r, err := q.first(ctx, req.Model)
	if err != nil {
		q.Counts.Refused.Add(1)
		return "", false, err
	}
	id = newID(req.Model, req.Low, req.Tenant, req.Key)
	hash := req.hash()
	if req.Key != "" {
		if known, err := q.compare(ctx, r, id, hash); known || err != nil {
			return id, false, err
		}
	}
	msg, object, err := q.messageFor(ctx, r, id, req, hash)
	if err != nil {
		return "", false, err
	}
	dup, err := q.publish(ctx, r, id, msg)
	if err == nil && dup && req.Key != "" {
		if known, err := q.compare(ctx, r, id, hash); known || err != nil {
			return id, false, err
		}
		// One before it, of which nothing is left, is younger than what the queue remembers of ids.
		msg.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s.%d", id, time.Now().UnixNano()))
		_, err = q.publish(ctx, r, id, msg)
	}
	if err != nil {
		if !errors.Is(err, ErrUnavailable) { // else it may be there all the same
			dropBlob(r.inputs, object)
		}
		q.Counts.Refused.Add(1)
		return "", false, err
	}
	q.Counts.Accepted.Add(1)
	_ = r.nc.Publish(q.Prefix+".wake", nil)
	return id, true, nil
}

// hash tells requests apart.
func (req *Request) hash() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q ", req.Kind, req.Version)
	for _, k := range slices.Sorted(maps.Keys(req.Header)) {
		fmt.Fprintf(h, "%q %q ", k, req.Header[k])
	}
	h.Write(req.Body)
	return hex.EncodeToString(h.Sum(nil))
}

// compare tells whether there is a task of that id, and that it is of the same request.
func (q *Queue) compare(ctx context.Context, r *ready, id ID, hash string) (known bool, err error) {
	v, err := r.read(ctx, q, id)
	if err != nil {
		return false, err
	}
	was := v.Hash
	if !v.known {
		m, err := r.message(ctx, q, id)
		if err != nil || m == nil {
			return false, err
		}
		of, err := metaOf(m.Header)
		if err != nil {
			return false, err
		}
		was = of.Hash
	}
	if was != "" && was != hash {
		return true, fmt.Errorf("%w: task %s", ErrKeyReused, id)
	}
	return true, nil
}

// messageFor makes the message of a task. Large inputs are stored before: without a message nobody
// sees them, and their time removes them.
func (q *Queue) messageFor(ctx context.Context, r *ready, id ID, req *Request, hash string) (msg *nats.Msg, object string, err error) {
	now := time.Now()
	wait := q.MaxWait
	if req.Wait > 0 {
		wait = min(wait, req.Wait)
	}
	of := meta{
		Kind: req.Kind, Version: req.Version, Header: req.Header, Created: now, Deadline: now.Add(wait), Hash: hash, Size: len(req.Body),
	}
	msg = nats.NewMsg(q.taskSubject(id))
	msg.Data = req.Body
	if len(req.Body) > inlineBytes {
		of.Object, msg.Data = string(id)+".in."+hash[:16], nil
		if err := putBlob(ctx, r.inputs, of.Object, req.Body); err != nil {
			return nil, "", err
		}
	}
	head, err := json.Marshal(of)
	if err != nil {
		return nil, of.Object, fmt.Errorf("write what the message says of its task: %w", err)
	}
	msg.Header.Set(metaHeader, string(head))
	msg.Header.Set(jetstream.MsgIDHeader, string(id))
	return msg, of.Object, nil
}

// publish publishes until it is known what became of it, or for submitLimit.
func (q *Queue) publish(ctx context.Context, r *ready, id ID, msg *nats.Msg) (duplicate bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, submitLimit)
	defer cancel()
	stream := q.streamOf(id.Model())
	for {
		attempt, end := q.linked(ctx, attemptLimit)
		var ack *jetstream.PubAck
		ack, err = r.js.PublishMsg(attempt, msg, jetstream.WithExpectStream(stream), jetstream.WithRetryAttempts(0))
		end()
		switch {
		case err == nil:
			return ack.Duplicate, nil
		case code(err) == codeFull:
			return q.fullOrThere(ctx, r, id)
		case code(err) != 0:
			return false, unavailable(err)
		}
		if why := q.full(); why != "" {
			return false, fmt.Errorf("%w: %s; whether this task was accepted is not known: repeat it with the same Idempotency-Key", ErrUnavailable, why)
		}
		if ctx.Err() != nil {
			return false, fmt.Errorf("%w: the queue does not answer; whether this task was accepted is not known: repeat it with the same Idempotency-Key", ErrUnavailable)
		}
		select {
		case <-time.After(10 * time.Millisecond): // it is being restarted
		case <-ctx.Done():
		}
	}
}

// fullOrThere finds out which of the two errors with one code it was.
func (q *Queue) fullOrThere(ctx context.Context, r *ready, id ID) (duplicate bool, err error) {
	m, err := r.message(ctx, q, id)
	switch {
	case err != nil:
		return false, err
	case m != nil:
		return true, nil
	}
	return false, fmt.Errorf("%w for model %q (tasks.max_tasks %d, tasks.max_bytes %d)", ErrFull, id.Model(), q.MaxTasks, q.MaxBytes)
}
