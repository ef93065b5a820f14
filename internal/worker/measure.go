package worker

import (
	"time"

	"preforkd/internal/inference"
)

// began counts a request in this worker's row.
func (w *worker) began() {
	w.row.InFlight.Add(1)
	w.row.Requests.Add(1)
}

// answered counts its answer.
func (w *worker) answered(status int, took time.Duration) {
	w.row.Respond(status)
	w.row.Latency.Observe(took)
	w.row.InFlight.Add(-1)
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

// Run is RunUntil without a stop.
func (m *watchedModel) Run(in, out []inference.Tensor) error { return m.RunUntil(nil, in, out) }

// RunUntil runs the model and says so in the row.
func (m *watchedModel) RunUntil(stop inference.Stop, in, out []inference.Tensor) error {
	row := m.w.row
	start := row.BusySince.Mark()
	err := m.Model.RunUntil(stop, in, out)
	row.BusySince.Clear()
	row.EngineCalls.Add(1)
	row.EngineNs.Add(uint64(start.Since()))
	return err
}
