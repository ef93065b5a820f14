package worker

import (
	"context"
	"encoding/json"

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
	}
}
