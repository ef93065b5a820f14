package worker

import (
	"fmt"
	"os"
	"sync"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/api"
	"preforkd/internal/worker/helper"
)

// helpers are the pools that this worker's routes ask. Their sockets are in a directory that it
// has as a descriptor, as no other user can name it.
func (w *worker) helpers() map[string]*helper.Pool {
	pools := map[string]*helper.Pool{}
	for _, r := range w.cfg.Routes {
		for _, text := range r.Steps {
			s, _ := config.ParseStep(text) // it has been checked
			set, ok := w.cfg.Helpers[s.Name]
			if !s.Helper || !ok || pools[s.Name] != nil {
				continue
			}
			pools[s.Name] = helper.New(helper.Options{
				Name: s.Name, Rows: w.board.Rows, Ready: ipc.StateReady, Generation: w.manifest.Generation, Socket: w.socketOf(s.Name),
				Connections: set.Connections, MaxWaiting: set.MaxWaiting, MaxWait: set.MaxWait, MaxAnswer: int(w.cfg.HTTP.MaxBody),
				Observe: func(running, waiting int) { w.sync.asks(w, running, waiting) },
				Served:  w.helped(s.Name),
			})
		}
	}
	return pools
}

// socketOf returns the path of the socket of a helper of that pool, by its row.
func (w *worker) socketOf(pool string) func(*scoreboard.Row) string {
	return func(r *scoreboard.Row) string {
		return fmt.Sprintf("/proc/self/fd/%d/%s", w.sockets, ipc.HelperSocket(r.Generation(), r.Ticket(), pool))
	}
}

// helped returns what counts the requests to helpers of a pool, for the whole service.
func (w *worker) helped(pool string) func(ok bool, took time.Duration) {
	tally := func(what string) *scoreboard.Counter { return w.board.Tally(scoreboard.HelperTally(what, pool)) }
	answered, failed, spent := tally(scoreboard.HelperAnswered), tally(scoreboard.HelperFailed), tally(scoreboard.HelperNs)
	return func(ok bool, took time.Duration) {
		if ok {
			answered.Add(1)
		} else {
			failed.Add(1)
		}
		spent.Add(uint64(took))
	}
}

// stepsOf are those of a route of the settings; key is the route's.
func stepsOf(r *config.Route, key string) (steps []api.Step) {
	for i, text := range r.Steps {
		s, _ := config.ParseStep(text) // it has been checked
		own := api.Step{Model: s.Name, Version: s.Sub}
		if s.Helper {
			own = api.Step{Helper: s.Name, Model: s.Sub}
		}
		own.At = fmt.Sprintf("%s.steps[%d]", key, i)
		if i < len(r.StepsAt) && r.StepsAt[i] != "" {
			own.At = r.StepsAt[i] + ": " + own.At
		}
		steps = append(steps, own)
	}
	return steps
}

// prove has this worker wait, where its generation serves nobody yet, until the steps of its
// routes are known to fit together. Once it serves a pool of helpers that is away is the affair of
// the routes that ask it.
func (w *worker) prove() error {
	if os.Getenv(ipc.EnvProves) == "" {
		return nil
	}
	err := w.api.Prove(func(pool string) bool {
		_ = w.supers.Send("STATUS=waiting for a helper of pool " + pool)
		return true // until the boot clock
	})
	if err == nil {
		return nil
	}
	return &ipc.Failure{
		Exit: ipc.ExitConfig, What: err.Error(), Err: err,
		Try: "correct the steps, or what the helper says at GET /v2/models/NAME (docs/helpers.md)",
	}
}

// syncLayer is who is on the layer sync: requests of routes that are on it, and requests to
// helpers, which their pools bound.
type syncLayer struct {
	mu         sync.Mutex // guards the fields below
	own, asked [2]int     // running, waiting
}

// holds notes how many requests of routes are on the layer.
func (l *syncLayer) holds(w *worker, running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own = [2]int{running, waiting}
	l.publish(w)
}

// asks notes how many more requests are at helpers, and wait for one.
func (l *syncLayer) asks(w *worker, running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[0] += running
	l.asked[1] += waiting
	l.publish(w)
}

func (l *syncLayer) publish(w *worker) {
	at := &w.row.Layers[scoreboard.LayerSync]
	at.Running.Set(int64(l.own[0] + l.asked[0]))
	at.Waiting.Set(int64(l.own[1] + l.asked[1]))
}
