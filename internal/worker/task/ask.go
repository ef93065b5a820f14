package task

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Get returns how a task is: ErrUnknown if there is none, ErrGone if its outcome has expired.
func (q *Queue) Get(ctx context.Context, id ID) (View, error) {
	r, err := q.first(ctx, "")
	if err != nil {
		return View{}, err
	}
	return q.view(ctx, r, id)
}

func (q *Queue) view(ctx context.Context, r *ready, id ID) (View, error) {
	view := View{ID: id, Model: id.Model()}
	v, err := r.read(ctx, q, id)
	if err != nil {
		return view, err
	}
	if v.known {
		view.Record, view.Created = v.Record, v.Created
		return view, nil
	}
	m, err := r.message(ctx, q, id)
	if err != nil {
		return view, err
	}
	if m == nil { // it may have been finished in between
		if v, err = r.read(ctx, q, id); err != nil {
			return view, err
		}
		switch {
		case v.known:
			view.Record, view.Created = v.Record, v.Created
			return view, nil
		case v.gone:
			return view, ErrGone
		}
		return view, ErrUnknown
	}
	of, err := metaOf(m.Header)
	if err != nil {
		return view, err
	}
	view.Created, view.Deadline = of.Created, of.Deadline
	view.Status, view.Hash = Queued, of.Hash
	if time.Now().After(of.Deadline) {
		return q.expire(ctx, r, id, v, of)
	}
	return view, nil
}

// expire ends a task whose time was over before it ran.
func (q *Queue) expire(ctx context.Context, r *ready, id ID, v version, of meta) (View, error) {
	next := v.Record
	next.Status, next.Finished, next.Created, next.Hash = Expired, time.Now(), of.Created, of.Hash
	next.Error = "its time was over before it ran"
	if _, err := r.write(ctx, q, id, v, next); errors.Is(err, errMoved) {
		return q.view(ctx, r, id)
	} else if err != nil {
		return View{}, err
	}
	q.purge(ctx, r, id)
	dropBlob(r.inputs, of.Object)
	q.event(r, id)
	return View{ID: id, Model: id.Model(), Created: of.Created, Record: next}, nil
}

// Wait is Get that waits until the task has ended, or for that long.
func (q *Queue) Wait(ctx context.Context, id ID, limit time.Duration) (View, error) {
	r, err := q.first(ctx, "")
	if err != nil {
		return View{}, err
	}
	if limit <= 0 {
		return q.view(ctx, r, id)
	}
	events := make(chan *nats.Msg, 8)
	sub, err := r.nc.ChanSubscribe(q.eventSubject(id), events)
	if err != nil {
		return View{}, unavailable(err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection has ended
	_ = r.nc.FlushTimeout(callLimit)
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		v, err := q.view(ctx, r, id)
		if err != nil && !errors.Is(err, ErrUnavailable) || v.Status.Terminal() {
			return v, err
		}
		select {
		case <-events:
		case <-time.After(2 * time.Second): // an event may be lost
		case <-end.C:
			return v, err
		case <-ctx.Done():
			return v, err
		}
	}
}

// Body returns the body of a result.
func (q *Queue) Body(ctx context.Context, res *Result) ([]byte, error) {
	if res.Object == "" {
		return res.Body, nil
	}
	r, err := q.first(ctx, "")
	if err != nil {
		return nil, err
	}
	return getBlob(ctx, r.results, res.Object)
}

// List returns tasks of a model, or of all, the latest first, at most so many.
func (q *Queue) List(ctx context.Context, model string, most int) ([]View, error) {
	r, err := q.first(ctx, "")
	if err != nil {
		return nil, err
	}
	token := ">"
	if model != "" {
		token = encode(model) + ".>"
	}
	ids := map[ID]bool{}
	if err := subjects(ctx, r.records, q.Prefix+".s.", token, ids); err != nil {
		return nil, unavailable(err)
	}
	for name, m := range r.models {
		if model == "" || name == model {
			if err := subjects(ctx, m.stream, q.Prefix+".q.", token, ids); err != nil {
				return nil, unavailable(err)
			}
		}
	}
	var views []View
	for id := range ids {
		if len(views) == 10*most { // so that there is an end to it
			break
		}
		v, err := q.view(ctx, r, id)
		switch {
		case errors.Is(err, ErrUnknown), errors.Is(err, ErrGone): // it has ended meanwhile
		case err != nil:
			return nil, err
		default:
			views = append(views, v)
		}
	}
	slices.SortFunc(views, func(a, b View) int { return b.Created.Compare(a.Created) })
	return views[:min(len(views), most)], nil
}

// subjects adds the ids for which a stream has messages.
func subjects(ctx context.Context, s jetstream.Stream, prefix, token string, ids map[ID]bool) error {
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+token))
	if err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		if id, ok := ParseID(subject[len(prefix):]); ok {
			ids[id] = true
		}
	}
	return nil
}

// Cancel ends a task. One that waits is gone at once; one that runs is told to stop. ErrDone: it
// has ended.
func (q *Queue) Cancel(ctx context.Context, id ID) (View, error) {
	r, err := q.first(ctx, "")
	if err != nil {
		return View{}, err
	}
	for {
		view, err := q.view(ctx, r, id)
		if err != nil {
			return view, err
		}
		if view.Status.Terminal() {
			return view, ErrDone
		}
		v, err := r.read(ctx, q, id)
		if err != nil {
			return view, err
		}
		if v.known && v.Status.Terminal() {
			continue
		}
		next := v.Record
		next.Created, next.Hash, next.Cancel = view.Created, view.Hash, true
		if v.Status != Running {
			next.Status, next.Finished, next.Error = Cancelled, time.Now(), "it was cancelled before it ran"
		}
		_, err = r.write(ctx, q, id, v, next)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return view, err
		}
		view.Record = next
		if next.Status == Cancelled {
			q.dropInput(ctx, r, id)
			q.purge(ctx, r, id)
			q.event(r, id)
		} else {
			_ = r.nc.Publish(q.Prefix+".cancel."+string(id), nil)
		}
		return view, nil
	}
}

// purge takes the message of a task out of the queue, whoever works on it.
func (q *Queue) purge(ctx context.Context, r *ready, id ID) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	stream, err := r.streamFor(ctx, q, id.Model())
	if err == nil && stream != nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(q.taskSubject(id)))
	}
	if err != nil { // whoever fetches it sees the record
		q.Log.Debug("message of a task that has ended stays", "task", id, "err", err)
	}
}

// dropInput removes the large input of a task that will not run.
func (q *Queue) dropInput(ctx context.Context, r *ready, id ID) {
	if m, err := r.message(ctx, q, id); err == nil && m != nil {
		if of, err := metaOf(m.Header); err == nil {
			dropBlob(r.inputs, of.Object)
		}
	}
}

// event tells those who wait for a task that something has happened to it.
func (q *Queue) event(r *ready, id ID) { _ = r.nc.Publish(q.eventSubject(id), nil) }
