package task

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errMoved is of a record that somebody else has written meanwhile.
var errMoved = errors.New("the task's record has changed meanwhile")

// JetStream's codes of errors, of server/errors.json in nats-server.
const (
	codeWrongSequence = 10071
	codeFull          = 10077 // of a full stream, and of a subject that has its one message
	codeNoSpace       = 10023
	codeStoreFailed   = 10047
)

// code is JetStream's of err, 0 if it has none.
func code(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}

// version is a record as it lies in the queue.
type version struct {
	Record
	number uint64    // what a compare-and-swap compares; 0: there has never been one
	known  bool      // there is a record
	gone   bool      // there was one, and its time is over
	at     time.Time // when it was written, or its time was over
}

// callLimit bounds one question to the queue.
const callLimit = 2 * time.Second

// read returns the record of id, as far as there is one.
func (r *ready) read(ctx context.Context, q *Queue, id ID) (v version, err error) {
	ctx, cancel := q.linked(ctx, callLimit)
	defer cancel()
	m, err := r.records.GetLastMsgForSubject(ctx, q.recordSubject(id))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return v, nil
	case err != nil:
		return v, unavailable(err)
	}
	v.number, v.at = m.Sequence, m.Time
	if m.Header.Get("Nats-Marker-Reason") != "" || m.Header.Get("KV-Operation") != "" {
		v.gone = true
		return v, nil
	}
	if err := json.Unmarshal(m.Data, &v.Record); err != nil {
		return v, fmt.Errorf("read the record of task %s: %w", id, err)
	}
	v.known = true
	return v, nil
}

// write replaces v by next, unless somebody else has done so: errMoved. A terminal record has a
// time after which it goes.
func (r *ready) write(ctx context.Context, q *Queue, id ID, v version, next Record) (version, error) {
	data, err := json.Marshal(next)
	if err != nil {
		return v, fmt.Errorf("write the record of task %s: %w", id, err)
	}
	opts := []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(v.number), jetstream.WithRetryAttempts(0)}
	switch {
	case next.Status == Dead:
		opts = append(opts, jetstream.WithMsgTTL(deadFor))
	case next.Status.Terminal():
		opts = append(opts, jetstream.WithMsgTTL(max(q.ResultTTL, time.Second)))
	default: // its message cannot outlast that
		opts = append(opts, jetstream.WithMsgTTL(q.MaxWait+q.MaxRun+q.ResultTTL))
	}
	ctx, cancel := q.linked(ctx, callLimit)
	defer cancel()
	ack, err := r.js.Publish(ctx, q.recordSubject(id), data, opts...)
	switch {
	case code(err) == codeWrongSequence:
		return v, errMoved
	case err != nil:
		return v, unavailable(err)
	}
	return version{Record: next, number: ack.Sequence, known: true}, nil
}

// message returns the message of id while it waits or runs; nil: there is none.
func (r *ready) message(ctx context.Context, q *Queue, id ID) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	stream, err := r.streamFor(ctx, q, id.Model())
	if err != nil || stream == nil {
		return nil, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, q.taskSubject(id))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, nil
	case err != nil:
		return nil, unavailable(err)
	}
	return m, nil
}

// streamFor returns the stream of a model, also of one that is not served any more; nil: it has none.
func (r *ready) streamFor(ctx context.Context, q *Queue, name string) (jetstream.Stream, error) {
	if m := r.models[name]; m != nil {
		return m.stream, nil
	}
	s, err := r.js.Stream(ctx, q.streamOf(name))
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, nil
	case err != nil:
		return nil, unavailable(err)
	}
	return s, nil
}

const metaHeader = "Tk-Meta"

// metaOf reads what a message says of its task.
func metaOf(h nats.Header) (m meta, err error) {
	if err = json.Unmarshal([]byte(h.Get(metaHeader)), &m); err != nil {
		err = fmt.Errorf("read what the message says of its task: %w", err)
	}
	return m, err
}

// blobLimit bounds the transport of one input or result.
const blobLimit = 20 * time.Second

func putBlob(ctx context.Context, in jetstream.ObjectStore, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, blobLimit)
	defer cancel()
	if _, err := in.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(data)); err != nil {
		return unavailable(err)
	}
	return nil
}

func getBlob(ctx context.Context, from jetstream.ObjectStore, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, blobLimit)
	defer cancel()
	o, err := from.Get(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return nil, ErrGone
	case err != nil:
		return nil, unavailable(err)
	}
	defer o.Close()
	data, err := io.ReadAll(o) // compares the digest, too
	if err != nil {
		return nil, unavailable(err)
	}
	return data, nil
}

// dropBlob removes an object that nobody needs; else its time does.
func dropBlob(from jetstream.ObjectStore, name string) {
	if name == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	_ = from.Delete(ctx, name)
}
