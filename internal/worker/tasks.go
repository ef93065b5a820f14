package worker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/api"
	"preforkd/internal/worker/task"
)

// tasks is what this worker has to do with background tasks.
type tasks struct {
	queue *task.Queue // nil: there is none
	runs  sync.WaitGroup
	stop  context.CancelFunc      // ends the taking of tasks
	hurry context.CancelCauseFunc // has those that run given back
}

// openTasks makes this worker's end of the queue; it is connected when the worker serves.
func (w *worker) openTasks() error {
	m := w.manifest.Tasks
	if m == nil {
		return nil
	}
	t := &w.cfg.Tasks
	secure, err := taskTLS(t)
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // for people
	o := task.Options{
		URL: m.URL, Token: m.Token, Embedded: m.Embedded, Credentials: t.Credentials, NKey: t.NKey, TLS: secure,
		Prefix: t.Prefix, Replicas: 1, MaxTasks: int64(t.MaxTasks), MaxBytes: int64(t.MaxBytes), MaxInput: int64(t.MaxInput),
		ResultTTL: t.ResultTTL, MaxWait: t.MaxWait, MaxRun: t.Timeout, Attempts: t.Attempts, Crashes: t.MaxCrashes, AckWait: t.Silence,
		Node: fmt.Sprintf("%s %s", host, w.identity), Log: w.log,
	}
	if !m.Embedded {
		o.Replicas = t.Replicas
	}
	w.tasks.queue = task.New(o)
	w.tasks.queue.Serve(w.modelNames())
	return nil
}

// taskTLS is what is spoken with an external queue; nil: what its address says.
func taskTLS(t *config.Tasks) (*tls.Config, error) {
	if t.CA == "" && t.Cert == "" {
		return nil, nil
	}
	failure := func(key string, err error) error {
		return &ipc.Failure{Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: %v", key, err), Err: err, Try: "correct the file, or " + key + "; the workers' user has to be able to read it"}
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		data, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, failure("tasks.ca", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, failure("tasks.ca", errors.New("there is no certificate in "+t.CA))
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, failure("tasks.cert", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func (w *worker) modelNames() (names []string) {
	for _, m := range w.models.All() {
		names = append(names, m.Name)
	}
	return names
}

// keepTasks connects the queue, and says on the scoreboard how it is.
func (w *worker) keepTasks(ctx context.Context) {
	q := w.tasks.queue
	if q == nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := q.Run(ctx); err != nil {
			w.log.Error("no background tasks", "err", err)
		}
	})
	wg.Go(func() { w.countTasks(ctx) })
	wg.Wait()
}

// How often a worker adds up what it has done, and how often one of them asks the queue.
const (
	taskCount = 500 * time.Millisecond
	taskAsk   = 2 * time.Second
	// taskAbandon is how often one looks for tasks of models that are gone.
	taskAbandon = 3 * time.Second
)

func (w *worker) countTasks(ctx context.Context) {
	ticker := time.NewTicker(taskCount)
	defer ticker.Stop()
	var told [7]uint64
	abandon := time.Now()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			w.tellTasks(&told)
			return
		}
		w.tellTasks(&told)
		board := w.board.Queue()
		if age, ok := board.Said.Age(); ok && age < taskAsk || !w.tasks.queue.Reached() {
			continue
		}
		board.Said.Mark() // the others leave it to this one
		n, err := w.tasks.queue.Numbers(ctx)
		if err != nil {
			board.Said.Clear()
			continue
		}
		board.Depth.Set(int64(n.Depth))
		board.Running.Set(int64(n.Running))
		board.Oldest.Set(n.Oldest.Milliseconds())
		board.Dead.Set(int64(n.Dead))
		board.Used.Set(int64(n.Used))
		board.Limit.Set(int64(n.Limit))
		full := int64(0)
		if n.Full {
			full = 1
		}
		board.Full.Set(full)
		if w.manifest.Tasks.Embedded && time.Now().After(abandon) && w.board.Committed().Load() == w.manifest.Generation {
			abandon = time.Now().Add(taskAbandon)
			w.abandonTasks(ctx)
		}
	}
}

// abandonTasks ends the tasks of models that this service does not have any more.
func (w *worker) abandonTasks(ctx context.Context) {
	served := map[string]bool{}
	for _, name := range w.modelNames() {
		served[name] = true
	}
	if err := w.tasks.queue.Abandon(ctx, func(model string) bool { return served[model] }); err != nil && ctx.Err() == nil {
		w.log.Debug("tasks of models that are gone stay for now", "err", err)
	}
}

// tellTasks adds to the scoreboard's counters what has come to this worker's since.
func (w *worker) tellTasks(told *[7]uint64) {
	c, b := &w.tasks.queue.Counts, w.board.Queue()
	for i, to := range [...]struct {
		now uint64
		sum *scoreboard.Counter
	}{
		{c.Accepted.Load(), &b.Accepted},
		{c.Refused.Load(), &b.Refused},
		{c.Finished.Load(), &b.Finished},
		{c.Failed.Load(), &b.Failed},
		{c.Retried.Load(), &b.Retried},
		{c.Redelivered.Load(), &b.Redelivered},
		{c.Crashed.Load(), &b.Crashed},
	} {
		to.sum.Add(to.now - told[i])
		told[i] = to.now
	}
}

// runTasks begins to run tasks, if this worker shall.
func (w *worker) runTasks() {
	m := w.manifest.Tasks
	if m == nil || !m.Runs {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	hurry, hasten := context.WithCancelCause(context.Background())
	w.tasks.stop, w.tasks.hurry = stop, hasten
	r := &task.Runner{Queue: w.tasks.queue, Do: w.api.Perform, Suspects: m.Only || !m.Apart}
	r.Began = func(t *task.Task) func() {
		w.row.Running.Begin(string(t.ID), t.Ack)
		return w.row.Running.End
	}
	if !m.Only {
		r.May = w.mayRunTask
	}
	w.tasks.runs.Go(func() { r.Run(ctx, hurry) })
}

// idleLook is how often a worker that serves clients looks whether it has time for a task.
const idleLook = 5 * time.Millisecond

// mayRunTask waits until no request waits, and one more could run.
func (w *worker) mayRunTask(ctx context.Context) (func(), error) {
	for w.permits.Waiting() > 0 || w.permits.InUse() >= w.permits.Size() {
		select {
		case <-time.After(idleLook):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return func() {}, ctx.Err()
}

// taskGrace is how long before the end of the drain clock a task that runs is given back.
const taskGrace = 2 * time.Second

// leaveTasks takes no more tasks, lets the one that runs end, and gives it back if it does not in time.
// It returns when none runs here.
func (w *worker) leaveTasks(ctx context.Context) {
	if w.tasks.stop == nil {
		return
	}
	w.tasks.stop()
	ended := make(chan struct{})
	go func() {
		w.tasks.runs.Wait()
		close(ended)
	}()
	soon := w.cfg.Timeouts.Drain - taskGrace
	select {
	case <-ended:
		return
	case <-time.After(max(soon, w.cfg.Timeouts.Drain/2)):
	case <-ctx.Done():
	}
	w.tasks.hurry(task.ErrLeaving)
	select {
	case <-ended:
	case <-time.After(taskGrace): // a run that cannot be stopped: the queue gives its task to another
	}
}

// returnTask gives a task of a worker that has ended back to the queue.
func (w *worker) returnTask(ctx context.Context, body json.RawMessage) (any, error) {
	var t ipc.TaskReturn
	if err := json.Unmarshal(body, &t); err != nil {
		return nil, fmt.Errorf("return %.200s: which task?", body)
	}
	if w.tasks.queue == nil {
		return nil, errors.New("return a task: this worker has no queue of tasks")
	}
	id, ok := task.ParseID(t.ID)
	if !ok {
		return nil, fmt.Errorf("return task %.200s: it is none", t.ID)
	}
	for {
		err := w.tasks.queue.Return(ctx, task.Returned{ID: id, Ack: t.Ack, Why: t.Why, Lines: t.Lines, Blame: t.Blame})
		if err == nil || !errors.Is(err, task.ErrUnavailable) {
			return nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// orderTasks does what an operator wants of tasks.
func (w *worker) orderTasks(ctx context.Context, body json.RawMessage) (any, error) {
	var o ipc.TaskOrder
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, fmt.Errorf("tasks %.200s: what of them?", body)
	}
	if w.tasks.queue == nil {
		return nil, errors.New("tasks: this worker has no queue of them")
	}
	answer, err := w.answerTasks(ctx, o)
	if err != nil {
		f := &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error()}
		switch {
		case errors.Is(err, task.ErrUnknown), errors.Is(err, task.ErrGone):
			f.Exit, f.Try = ipc.ExitUsage, "preforkd tasks ls"
		case errors.Is(err, task.ErrDone):
			f.Exit = ipc.ExitTryAgain
			f.Try = "preforkd tasks show " + o.ID
		}
		answer.Failure = f
	}
	return answer, nil
}

func (w *worker) answerTasks(ctx context.Context, o ipc.TaskOrder) (answer ipc.TaskAnswer, err error) {
	q := w.tasks.queue
	var views []task.View
	switch o.Do {
	case ipc.TaskList:
		views, err = q.List(ctx, o.Model, max(o.Most, 1))
	case ipc.TaskDead:
		views, err = q.Parked(ctx, max(o.Most, 1))
	case ipc.TaskShow, ipc.TaskCancel, ipc.TaskRetry:
		id, ok := task.ParseID(o.ID)
		if !ok {
			return answer, fmt.Errorf("%w: %.100q", task.ErrUnknown, o.ID)
		}
		var v task.View
		switch o.Do {
		case ipc.TaskShow:
			v, err = q.Get(ctx, id)
		case ipc.TaskCancel:
			answer.Message = fmt.Sprintf("task %s is cancelled", id)
			if v, err = q.Cancel(ctx, id); !v.Status.Terminal() {
				answer.Message = fmt.Sprintf("task %s is told to stop", id)
			}
		default:
			answer.Message = fmt.Sprintf("task %s runs again", id)
			if err = q.Retry(ctx, id); err == nil {
				v, err = q.Get(ctx, id)
			}
		}
		views = append(views, v)
	default:
		return answer, fmt.Errorf("tasks: %.50q is nothing that can be done to them", o.Do)
	}
	if err != nil {
		return ipc.TaskAnswer{}, err
	}
	for _, v := range views {
		answer.Tasks = append(answer.Tasks, api.TaskState(v))
	}
	return answer, nil
}
