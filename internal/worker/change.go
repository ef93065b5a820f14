package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
)

// A change of models has two phases (docs/internals/models.md): every worker prepares, beside
// what it serves, and only when all have, each serves what it has prepared. Whether it came to
// that is a word of the scoreboard: a worker whose supervisor has died finds it there.

// change is what this worker has prepared.
type change struct {
	mu      sync.Mutex // guards the fields below; held while models are loaded
	number  uint64     // 0: nothing
	pending *repository.Pending
	set     *ipc.ModelSet

	asked, dropped atomic.Uint64  // the highest number that was to be prepared, and to be dropped
	beside         sync.WaitGroup // what loads, and what waits to free
}

// over tells whether nobody waits for change n any more.
func (c *change) over(ctx context.Context, n uint64) bool {
	return ctx.Err() != nil || n < c.asked.Load() || n <= c.dropped.Load()
}

// loadNice is the priority of the thread that loads and tries models beside what is served:
// where requests want the core it gets a seventieth of it (sched(7)).
const loadNice = 19

// errOver is of a change that nobody waits for any more.
var errOver = errors.New("this change of models was given up")

// prepare loads what a change adds. What it replaces is served meanwhile.
func (w *worker) prepare(ctx context.Context, body json.RawMessage) (any, error) {
	var c ipc.ModelChange
	if err := json.Unmarshal(body, &c); err != nil || c.Number == 0 {
		return nil, fmt.Errorf("prepare %.200s: which change?", body)
	}
	set, err := readSet(c.File)
	if err != nil {
		return nil, err
	}
	w.change.asked.Store(max(w.change.asked.Load(), c.Number))
	done := make(chan error, 1)
	w.change.beside.Go(func() { // ends when the models have been loaded and tried; with it its thread, which stays slow
		runtime.LockOSThread()
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), loadNice) // else it is in the way a little
		w.change.mu.Lock()
		defer w.change.mu.Unlock()
		if w.change.over(ctx, c.Number) {
			done <- errOver
			return
		}
		w.forget()
		pending, err := w.loadAside(ctx, set)
		if err == nil && w.change.over(ctx, c.Number) {
			pending.Drop()
			err = errOver
		}
		if err == nil {
			w.change.number, w.change.pending, w.change.set = c.Number, pending, set
		}
		done <- err
	})
	select {
	case err := <-done:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func readSet(file string) (*ipc.ModelSet, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read what shall be served: %w", err)
	}
	var set ipc.ModelSet
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("read what shall be served: %w", err)
	}
	return &set, nil
}

// loadAside loads and tries the models of set that are not served yet. They run without a
// permit: nobody waits for them, at the price of a core that is shared for as long.
func (w *worker) loadAside(ctx context.Context, set *ipc.ModelSet) (*repository.Pending, error) {
	w.watched.aside = true
	w.watched.calls(set.Models)
	w.watched.fresh = nil
	defer func() { _ = w.supers.Send("STATUS=serving") }()
	pending, err := w.models.Prepare(set.Models)
	if err != nil {
		return nil, loadFailure(err)
	}
	w.warnPlain(pending.Fresh(), set.Models)
	for _, m := range pending.Fresh() {
		for i := range set.Models {
			if f := &set.Models[i]; f.Name == m.Name && f.Version == m.Version {
				err = errors.Join(err, testModel(ctx, f, m, (*repository.Model).Run))
			}
		}
	}
	if err != nil {
		pending.Drop()
		return nil, err
	}
	trim()
	return pending, nil
}

// loadFailure is what an operator reads of models that cannot be loaded.
func loadFailure(err error) error {
	if bad := (*repository.LoadError)(nil); errors.As(err, &bad) {
		return &ipc.Failure{Exit: ipc.ExitBoot, What: err.Error(), Err: err, Try: "replace or remove the files, then start again"}
	}
	return err
}

// commit serves what was prepared.
func (w *worker) commit(_ context.Context, body json.RawMessage) (any, error) {
	number, err := numberOf(body)
	if err != nil {
		return nil, err
	}
	w.change.mu.Lock()
	defer w.change.mu.Unlock()
	if w.change.number != number {
		return nil, fmt.Errorf("commit change %d: change %d is prepared here", number, w.change.number)
	}
	w.adopt()
	return nil, nil
}

// drop forgets what was prepared. It returns when nothing of it is left.
func (w *worker) drop(_ context.Context, body json.RawMessage) (any, error) {
	number, err := numberOf(body)
	if err != nil {
		return nil, err
	}
	w.change.dropped.Store(max(w.change.dropped.Load(), number))
	w.change.mu.Lock()
	defer w.change.mu.Unlock()
	if w.change.number == number {
		w.forget()
	}
	return nil, nil
}

func numberOf(body json.RawMessage) (uint64, error) {
	var c ipc.ModelChange
	if err := json.Unmarshal(body, &c); err != nil || c.Number == 0 {
		return 0, fmt.Errorf("%.200s: which change?", body)
	}
	return c.Number, nil
}

// resolve ends a change whose supervisor has died, as it had decided.
func (w *worker) resolve() {
	w.change.mu.Lock()
	defer w.change.mu.Unlock()
	switch decided := w.board.Decided().Load(); {
	case w.change.number == 0:
	case w.change.number <= decided:
		w.log.Warn("supervisor died in the middle of a change of models, which was decided: serving it", "change", w.change.number)
		w.adopt()
	default:
		w.log.Warn("supervisor died in the middle of a change of models, which was not decided: dropping it", "change", w.change.number)
		w.forget()
	}
}

// adopt serves what is pending. The caller holds w.change.mu.
func (w *worker) adopt() {
	for _, m := range w.watched.fresh {
		m.serves.Store(true)
	}
	w.api.Meet(w.change.pending.Fresh())
	retire := w.change.pending.Commit()
	w.set.Store(w.change.set)
	w.api.Changed()
	if w.tasks.queue != nil {
		w.tasks.queue.Serve(w.modelNames())
	}
	w.change.number, w.change.pending, w.change.set, w.watched.fresh = 0, nil, nil, nil
	w.change.beside.Go(func() { // ends when the requests that were under way have been answered
		retire()
		w.reportModels()
	})
}

// forget frees what is pending, if anything is. The caller holds w.change.mu.
func (w *worker) forget() {
	if w.change.pending != nil {
		w.change.pending.Drop()
	}
	w.change.number, w.change.pending, w.change.set = 0, nil, nil
}

// order asks the supervisor to load or to unload a model, and returns when that is done.
func (w *worker) order(order ipc.ModelOrder) error {
	return w.control.Call(context.Background(), ipc.ControlModel, order, nil)
}
