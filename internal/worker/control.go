package worker

import (
	"context"
	"encoding/json"
	"fmt"

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
			return nil, w.selfTest(ctx)
		},
		ipc.ControlShare: func(ctx context.Context, body json.RawMessage) (any, error) {
			var share ipc.Share
			if err := json.Unmarshal(body, &share); err != nil || share.Of < 1 {
				return nil, fmt.Errorf("share %s: one in how many?", body)
			}
			n := w.conns.Open() / share.Of
			return nil, w.give(ctx, n)
		},
	}
}

// give gives n connections away, as far as it can until ctx ends.
func (w *worker) give(ctx context.Context, n int) error {
	moved := w.conns.Give(ctx, w.queue, n)
	w.log.Debug("connections shared", "asked", n, "moved", moved)
	return nil
}
