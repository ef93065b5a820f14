package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func jsonText(v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write what the message says of its task: %w", err)
	}
	return string(data), nil
}

// Parked returns the tasks that are kept because they ended their workers, or failed as often as
// they may, at most so many.
func (q *Queue) Parked(ctx context.Context, most int) ([]View, error) {
	r, err := q.first(ctx, "")
	if err != nil {
		return nil, err
	}
	ids := map[ID]bool{}
	if err := subjects(ctx, r.dead, q.Prefix+".dead.", ">", ids); err != nil {
		return nil, unavailable(err)
	}
	var views []View
	for id := range ids {
		v, err := q.view(ctx, r, id)
		if errors.Is(err, ErrUnknown) || errors.Is(err, ErrGone) {
			v, err = View{ID: id, Model: id.Model(), Record: Record{Status: Failed, Error: "its record has expired"}}, nil
		}
		if err != nil {
			return nil, err
		}
		if v.Status.Terminal() {
			views = append(views, v)
		}
		if len(views) == most {
			break
		}
	}
	return views, nil
}

// Retry has a parked task run again, from the beginning and under the same id.
func (q *Queue) Retry(ctx context.Context, id ID) error {
	r, err := q.first(ctx, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	m, err := r.dead.GetLastMsgForSubject(ctx, q.deadSubject(id))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return fmt.Errorf("%w that is parked: %s", ErrUnknown, id)
	case err != nil:
		return unavailable(err)
	}
	of, err := metaOf(m.Header)
	if err != nil {
		return err
	}
	v, err := r.read(ctx, q, id)
	if err != nil {
		return err
	}
	if v.known && !v.Status.Terminal() {
		return fmt.Errorf("task %s is %s already", id, v.Status)
	}
	now := time.Now()
	of.Deadline = now.Add(q.MaxWait)
	head, err := jsonText(of)
	if err != nil {
		return err
	}
	if _, err := r.write(ctx, q, id, v, Record{Status: Retrying, NextAt: now, Created: of.Created, Hash: of.Hash}); err != nil {
		return err
	}
	msg := nats.NewMsg(q.taskSubject(id))
	msg.Data = m.Data
	msg.Header.Set(metaHeader, head)
	_, err = r.js.PublishMsg(ctx, msg, jetstream.WithMsgID(fmt.Sprintf("%s.%d", id, now.UnixNano())), jetstream.WithExpectStream(q.streamOf(id.Model())))
	if err != nil {
		return unavailable(err)
	}
	if err := r.dead.Purge(ctx, jetstream.WithPurgeSubject(q.deadSubject(id))); err != nil {
		return unavailable(err)
	}
	return r.nc.Publish(q.Prefix+".wake", nil)
}

// Abandon ends the tasks of models that nobody serves any more, with the reason. It is for a queue
// that no other machine has.
func (q *Queue) Abandon(ctx context.Context, served func(model string) bool) error {
	r, err := q.first(ctx, "")
	if err != nil {
		return err
	}
	names := r.js.StreamNames(ctx, jetstream.WithStreamListSubject(q.Prefix+".q.>"))
	for name := range names.Name() {
		model, ok := decode(name[min(len(q.Prefix+"_tasks_"), len(name)):])
		if !ok || served(model) {
			continue
		}
		if err := q.abandon(ctx, r, model); err != nil {
			return err
		}
	}
	return names.Err()
}

func (q *Queue) abandon(ctx context.Context, r *ready, model string) error {
	stream, err := r.js.Stream(ctx, q.streamOf(model))
	if err != nil {
		return unavailable(err)
	}
	ids := map[ID]bool{}
	if err := subjects(ctx, stream, q.Prefix+".q.", encode(model)+".>", ids); err != nil {
		return unavailable(err)
	}
	for id := range ids {
		v, err := r.read(ctx, q, id)
		if err != nil {
			return err
		}
		m, err := r.message(ctx, q, id)
		if err != nil {
			return err
		}
		if m == nil || v.known && (v.Status.Terminal() || v.Status == Running) {
			continue
		}
		of, err := metaOf(m.Header)
		if err != nil {
			return err
		}
		next := v.Record
		next.Status, next.Finished, next.Created, next.Hash = Failed, time.Now(), of.Created, of.Hash
		next.Error = fmt.Sprintf("model %q is not served any more", model)
		if err := q.finish(ctx, r, id, of, v, next, m.Data); err == nil {
			q.purge(ctx, r, id)
		} else if !errors.Is(err, errMoved) {
			return err
		}
	}
	return nil
}
