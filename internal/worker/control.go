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
			return nil, w.give(ctx, w.conns.Open()/share.Of)
		},
		ipc.ControlCount: func(context.Context, json.RawMessage) (any, error) {
			return ipc.Count{Connections: w.conns.Open()}, nil
		},
		ipc.ControlLevel: func(ctx context.Context, body json.RawMessage) (any, error) {
			var level ipc.Level
			if err := json.Unmarshal(body, &level); err != nil || level.Connections < 0 {
				return nil, fmt.Errorf("level %s: how many connections?", body)
			}
			w.leveling.begin(level, time.Now())
			if n := w.conns.Open() - level.Connections; n > 0 {
				return nil, w.give(ctx, n)
			}
			return nil, nil
		},
		ipc.ControlLeveled: func(_ context.Context, body json.RawMessage) (any, error) {
			var end ipc.Leveled
			if err := json.Unmarshal(body, &end); err != nil {
				return nil, fmt.Errorf("leveled %s: in which round?", body)
			}
			w.leveling.end(end.Round)
			return nil, nil
		},
	}
}

// give gives n connections away, as far as it can until ctx ends. It takes none
// meanwhile: what those that share give is for the others.
func (w *worker) give(ctx context.Context, n int) error {
	w.sharing.Add(1)
	defer w.sharing.Add(-1)
	moved := w.conns.Give(ctx, w.queue, n)
	w.log.Debug("connections shared", "asked", n, "moved", moved)
	return nil
}

// leveling is the round of ipc.Level under way. Safe for concurrent use.
type leveling struct {
	mu    sync.Mutex // guards the fields below
	level ipc.Level
	until time.Time // zero: none is
}

func (l *leveling) begin(level ipc.Level, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level, l.until = level, now.Add(ipc.LevelLimit)
}

// end ends the round of that number, not a later one.
func (l *leveling) end(round uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.level.Round == round {
		l.until = time.Time{}
	}
}

// takes tells whether a worker with so many connections may take one more.
func (l *leveling) takes(open int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !now.Before(l.until) || open < l.level.Connections
}
