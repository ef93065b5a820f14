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
			return nil, w.pace.run(ctx, w.selfTest)
		},
		ipc.ControlShare: func(ctx context.Context, body json.RawMessage) (any, error) {
			var share ipc.Share
			if err := json.Unmarshal(body, &share); err != nil || share.Of < 1 || share.Parts < 0 || share.Parts > share.Of {
				return nil, fmt.Errorf("share %s: how many in how many?", body)
			}
			return nil, w.give(ctx, w.conns.Open()*max(share.Parts, 1)/share.Of)
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
