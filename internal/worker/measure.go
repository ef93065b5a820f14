package worker

import (
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
)

// counted counts requests in this worker's row. What a client has read is counted
// already: the answer is written after the handler has returned.
func (w *worker) counted(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	row := w.row
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		row.InFlight.Add(1)
		row.Requests.Add(1)
		next(ctx)
		row.Respond(ctx.Response.StatusCode())
		row.Latency.Observe(time.Since(start))
		row.InFlight.Add(-1)
	}
}

// watched is the engine, seen by the supervisor: which file is being loaded (on some
// damaged ones the native code aborts the process, which can then say nothing more),
// and since when a call into it lasts.
type watched struct {
	inference.Engine
	w *worker
}

// Load announces path by the name that the operator gave it.
func (e *watched) Load(path string) (inference.Model, error) {
	for _, m := range e.w.manifest.Models {
		if m.Path == path {
			_ = e.w.supers.Send("STATUS=loading " + m.Source)
		}
	}
	m, err := e.Engine.Load(path)
	if err != nil {
		return nil, err
	}
	return &watchedModel{m, e.w}, nil
}

type watchedModel struct {
	inference.Model
	w *worker
}

// Run runs the model and says so in the row.
func (m *watchedModel) Run(in, out []inference.Tensor) error {
	row := m.w.row
	start := time.Now()
	row.BusySince.Mark()
	err := m.Model.Run(in, out)
	row.BusySince.Clear()
	row.EngineCalls.Add(1)
	row.EngineNs.Add(uint64(time.Since(start)))
	return err
}
