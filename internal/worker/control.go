package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/control"
)

// handlers answer what the supervisor asks.
func (w *worker) handlers() map[string]control.Handler {
	return map[string]control.Handler{
		ipc.ControlPrepare:    w.prepare,
		ipc.ControlCommit:     w.commit,
		ipc.ControlDrop:       w.drop,
		ipc.ControlTaskReturn: w.returnTask,
		ipc.ControlTasks:      w.orderTasks,
		ipc.ControlAccept: func(context.Context, json.RawMessage) (any, error) {
			w.release()
			return nil, nil
		},
		ipc.ControlSelfTest: func(ctx context.Context, _ json.RawMessage) (any, error) {
			return nil, w.pace.run(ctx, w.selfTest)
		},
		ipc.ControlShare: func(ctx context.Context, body json.RawMessage) (any, error) {
			var share ipc.Share
			if err := json.Unmarshal(body, &share); err != nil || share.Of < 1 {
				return nil, fmt.Errorf("share %s: how many in how many?", body)
			}
			return nil, w.give(ctx, share.Round, w.conns.Open()/share.Of)
		},
		ipc.ControlCount: func(context.Context, json.RawMessage) (any, error) {
			return ipc.Count{Connections: w.conns.Open()}, nil
		},
		ipc.ControlLevel: func(ctx context.Context, body json.RawMessage) (any, error) {
			var level ipc.Level
			if err := json.Unmarshal(body, &level); err != nil || level.Connections < 0 {
				return nil, fmt.Errorf("level %s: how many connections?", body)
			}
			w.rounds.hold(level, time.Now())
			return nil, w.give(ctx, level.Round, w.conns.Open()-level.Connections)
		},
		ipc.ControlSettle: func(_ context.Context, body json.RawMessage) (any, error) {
			var settle ipc.Settle
			if err := json.Unmarshal(body, &settle); err != nil {
				return nil, fmt.Errorf("settle %s: which round?", body)
			}
			w.rounds.settle(settle.Round)
			return nil, nil
		},
	}
}

// give gives n connections away, as far as it can until the round or ctx ends.
func (w *worker) give(ctx context.Context, round uint64, n int) error {
	ctx, end := w.rounds.enter(ctx, round)
	defer end()
	if n <= 0 {
		return nil
	}
	moved := w.conns.Give(ctx, w.queue, n)
	w.log.Debug("connections shared", "asked", n, "moved", moved)
	return nil
}

// rounds are what ipc.Share and ipc.Level have begun and ipc.Settle has not ended. Safe for
// concurrent use: the calls of a round may overtake each other on their way here.
type rounds struct {
	mu      sync.Mutex // guards the fields below
	settled uint64
	giving  map[uint64]context.CancelFunc // by round
	level   ipc.Level
	until   time.Time // of level
}

// enter returns a context for giving in a round, which it ends. The worker takes nothing
// before end is called: what those that share give is for the others.
func (r *rounds) enter(ctx context.Context, round uint64) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if round <= r.settled {
		cancel()
		return ctx, cancel
	}
	if r.giving == nil {
		r.giving = map[uint64]context.CancelFunc{}
	}
	r.giving[round] = cancel
	return ctx, func() {
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.giving, round)
	}
}

// hold makes level hold, until its round ends.
func (r *rounds) hold(level ipc.Level, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if level.Round > r.settled {
		r.level, r.until = level, now.Add(ipc.LevelLimit)
	}
}

// settle ends the rounds up to that number.
func (r *rounds) settle(round uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settled = max(r.settled, round)
	for n, cancel := range r.giving {
		if n <= r.settled {
			cancel()
			delete(r.giving, n)
		}
	}
}

// takes tells whether a worker with so many connections may take one more.
func (r *rounds) takes(open int, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	level := r.level.Round > r.settled && now.Before(r.until)
	return len(r.giving) == 0 && (!level || open < r.level.Connections)
}
