package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
)

// taskModel answers the features of a digit; so many rows at once take it some 10 ms, in a body that is part of its message.
const (
	taskModel = "digits-forest"
	taskRows  = 1700
)

// taskStage starts preforkd with background tasks and so many workers that run them.
func taskStage(ctx context.Context, l *lab, runners int) (*stage, error) {
	s := &stage{c: &ourselves, more: runners}
	store, err := os.MkdirTemp(l.dir, "tasks-")
	if err != nil {
		return nil, err
	}
	s.settings = fmt.Sprintf("ops: {listen: \"off\"}\ntasks: {enabled: true, allow_memory: true, store: %s, max_tasks: 1000000, max_bytes: 8GiB, workers: %d}", store, runners)
	if err := l.begin(ctx, s); err != nil {
		return nil, errors.Join(err, os.RemoveAll(store))
	}
	ctx, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	for { // the queue is there a moment after the service
		st, err := s.status(ctx)
		if err == nil && st.Tasks != nil && st.Tasks.Up && st.Tasks.Said > 0 {
			return s, nil
		}
		if err == nil {
			err = rest(ctx, 20*time.Millisecond)
		}
		if err != nil {
			s.end()
			return nil, err
		}
	}
}

// rowsOf is a request of n rows to /predict.
func rowsOf(n int) []byte {
	row := "[0" + strings.Repeat(",8", 63) + "]"
	return []byte(`{"features":[` + row + strings.Repeat(","+row, n-1) + `]}`)
}

// taskClient has a connection for each of its callers.
var taskClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// call makes a request and reads the answer into into, if it is not nil.
func (s *stage) call(ctx context.Context, method, path string, body []byte, into any, header ...string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.address()+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := taskClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(data, into)
	}
	return resp.StatusCode, err
}

// submitTask returns the id of a task.
func (s *stage) submitTask(ctx context.Context, model string, body []byte) (id string, err error) {
	var t ipc.TaskState
	status, err := s.call(ctx, http.MethodPost, "/models/"+model+"/tasks", body, &t)
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("submit a task: status %d", status)
	}
	return t.ID, err
}

// awaitTask waits until a task has ended well.
func (s *stage) awaitTask(ctx context.Context, id string) (t ipc.TaskState, err error) {
	for {
		status, err := s.call(ctx, http.MethodGet, "/tasks/"+id, nil, &t, "Prefer", "wait=10")
		switch {
		case err != nil || status != http.StatusOK:
			return t, fmt.Errorf("task %s: status %d, %w", id, status, err)
		case t.Status == "succeeded":
			return t, nil
		case t.Status != "queued" && t.Status != "running" && t.Status != "retrying":
			return t, fmt.Errorf("task %s is %s: %s", id, t.Status, t.Error)
		}
	}
}

// tasksLatency submits one task after the other to a service that has nothing else to do.
func tasksLatency(ctx context.Context, l *lab) (*result, error) {
	s, err := taskStage(ctx, l, 1)
	if err != nil {
		return nil, err
	}
	defer s.end()
	var each []float64
	for i := range of(&l.options, 300, 20) {
		id, err := s.submitTask(ctx, "digits", rowsOf(1))
		if err != nil {
			return nil, err
		}
		t, err := s.awaitTask(ctx, id)
		if err != nil {
			return nil, err
		}
		if i >= 5 { // the first ones open connections
			each = append(each, float64(t.Started.Sub(*t.Created).Microseconds())/1e3)
		}
	}
	t := table{head: []string{"accepted → started", "times", "median ms", "min–max"}}
	t.add("idle service", fmt.Sprint(len(each)), digits(median(each)), spread(each))
	return &result{
		Title: "How soon a task begins", Tables: []table{t},
		Goals: []goal{goal{Text: "accepted → started, median", Limit: 5, AtMost: true, Unit: " ms", Values: []float64{median(each)}}.judge()},
		Notes: []string{"one task after the other, each brought to the disk before it is accepted; by the times that the task itself has"}, Raw: each,
	}, nil
}

// tasksThrough has the same work done directly and through tasks, by as many workers.
func tasksThrough(ctx context.Context, l *lab) (*result, error) {
	s, err := taskStage(ctx, l, 1)
	if err != nil {
		return nil, err
	}
	defer s.end()
	n, body := of(&l.options, 200, 20), rowsOf(taskRows)
	var ratio, direct, through []float64
	for range l.times(5) {
		begun := time.Now()
		for range n {
			if status, err := s.call(ctx, http.MethodPost, "/predict/"+taskModel, body, nil); err != nil || status != http.StatusOK {
				return nil, fmt.Errorf("predict: status %d, %w", status, err)
			}
		}
		a := float64(n) / time.Since(begun).Seconds()
		b, err := s.drain(ctx, n, body)
		if err != nil {
			return nil, err
		}
		direct, through, ratio = append(direct, a), append(through, b), append(ratio, b/a)
		l.say("%s/s directly, %s/s through tasks", digits(a), digits(b))
	}
	t := table{head: []string{"one at a time", "per s", "min–max"}}
	t.add("directly", digits(median(direct)), spread(direct))
	t.add("through tasks", digits(median(through)), spread(through))
	return &result{
		Title: "A model of some 10 ms through tasks", Tables: []table{t},
		Goals: []goal{goal{Text: "through tasks / directly", Limit: 0.8, Values: ratio}.judge()},
		Notes: []string{fmt.Sprintf("%d requests of %d rows to %s, of one client; as many tasks, of one worker, from the first's start to the last's end: each is a record, its outcome and an acknowledgement on the disk", n, taskRows, taskModel)},
		Raw:   [][]float64{direct, through},
	}, nil
}

// drain submits n tasks and returns how many a second ended, from the start of the first to the end of
// the last.
func (s *stage) drain(ctx context.Context, n int, body []byte) (perSecond float64, err error) {
	ids := make([]string, n)
	errs := make(chan error, n)
	var wg sync.WaitGroup
	const submitters = 8
	for c := range submitters {
		wg.Go(func() {
			for i := c; i < n; i += submitters {
				var err error
				if ids[i], err = s.submitTask(ctx, taskModel, body); err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		return 0, err
	}
	var first, last time.Time
	for _, id := range ids {
		t, err := s.awaitTask(ctx, id)
		if err != nil {
			return 0, err
		}
		if first.IsZero() || t.Started.Before(first) {
			first = *t.Started
		}
		if t.Finished.After(last) {
			last = *t.Finished
		}
	}
	return float64(n) / last.Sub(first).Seconds(), nil
}

// tasksBeside measures those who wait for an answer, with an empty queue of tasks and with a full one.
func tasksBeside(ctx context.Context, l *lab) (*result, error) {
	s, err := taskStage(ctx, l, 1)
	if err != nil {
		return nil, err
	}
	defer s.end()
	lasts := of(&l.options, 10*time.Second, time.Second)
	measure := func() (p50, p99 float64, err error) {
		r, err := s.under(ctx, load.Options{Conns: 1, Think: 5 * time.Millisecond}, func(*load.Generator) error { return rest(ctx, lasts) })
		if err != nil {
			return 0, 0, err
		}
		if r.Failures.Total() > 0 {
			return 0, 0, fmt.Errorf("%d requests failed: %v", r.Failures.Total(), r.Failures)
		}
		return r.Latency.P50.Seconds() * 1e3, r.Latency.P99.Seconds() * 1e3, nil
	}
	var half, high []float64
	t := table{head: []string{"round", "queue", "p50 ms", "p99 ms"}}
	for round := range l.times(3) {
		a50, a99, err := measure()
		if err != nil {
			return nil, err
		}
		filled := int(lasts/(10*time.Millisecond)) + 100
		if err := s.fill(ctx, filled); err != nil {
			return nil, err
		}
		b50, b99, err := measure()
		if err != nil {
			return nil, err
		}
		if err := s.empty(ctx); err != nil {
			return nil, err
		}
		half, high = append(half, b50/a50), append(high, b99/a99)
		t.add(fmt.Sprint(round), "empty", digits(a50), digits(a99))
		t.add(fmt.Sprint(round), "full", digits(b50), digits(b99))
	}
	return &result{
		Title: "Requests beside a full queue of tasks", Tables: []table{t},
		Goals: []goal{
			goal{Text: "p50 with a full queue / with an empty one", Limit: 1.1, AtMost: true, Values: half}.judge(),
			goal{Text: "p99 with a full queue / with an empty one", Limit: 1.5, AtMost: true, Values: high}.judge(),
		},
		Notes: []string{"one client, 5 ms between answer and request, to digits; tasks of some 10 ms in a pool of one worker with nice 19"}, Raw: [][]float64{half, high},
	}, nil
}

// fill submits n tasks.
func (s *stage) fill(ctx context.Context, n int) error {
	body := rowsOf(taskRows)
	for range n {
		if _, err := s.submitTask(ctx, taskModel, body); err != nil {
			return err
		}
	}
	return nil
}

// empty waits until no task waits or runs.
func (s *stage) empty(ctx context.Context) error {
	for {
		st, err := s.status(ctx)
		if err != nil {
			return err
		}
		if st.Tasks != nil && st.Tasks.Depth+st.Tasks.Running == 0 && time.Duration(st.Tasks.Said) < time.Second {
			return nil
		}
		if err := rest(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
