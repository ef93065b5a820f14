package worker

import (
	"time"

	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/api"
)

// served counts how a request to m went, where all workers do.
func (w *worker) served(m *repository.Model, s api.Served) {
	row := w.board.Model(m.Row)
	if row == nil {
		return
	}
	if s.Failed {
		row.Failures.Add(1)
		row.FailedNs.Add(uint64(s.Total))
		return
	}
	row.Requests.Add(1)
	row.Inferences.Add(uint64(s.Batch))
	if s.Led {
		row.Executions.Add(1)
	}
	row.QueueNs.Add(uint64(s.Queue))
	row.InputNs.Add(uint64(s.Input))
	row.EngineNs.Add(uint64(s.Engine))
	row.OutputNs.Add(uint64(s.Output))
	row.Mark(time.Now())
}

// stats returns what all workers have counted of m.
func (w *worker) stats(m *repository.Model) (s api.Stats) {
	row := w.board.Model(m.Row)
	if row == nil {
		return s
	}
	s = api.Stats{
		Requests: row.Requests.Load(), Inferences: row.Inferences.Load(), Executions: row.Executions.Load(), Failures: row.Failures.Load(),
		Queue: time.Duration(row.QueueNs.Load()), Input: time.Duration(row.InputNs.Load()),
		Engine: time.Duration(row.EngineNs.Load()), Output: time.Duration(row.OutputNs.Load()), Failed: time.Duration(row.FailedNs.Load()),
	}
	s.Total = s.Queue + s.Input + s.Engine + s.Output
	s.Last, _ = row.Last()
	return s
}

// dropped counts a request that no model has answered.
func (w *worker) dropped(f api.Fate) {
	switch f {
	case api.RefusedFull, api.RefusedSlow, api.RefusedLate:
		w.row.Refused[f-api.RefusedFull].Add(1)
	case api.ExpiredWaiting, api.ExpiredRunning:
		w.row.Expired[f-api.ExpiredWaiting].Add(1)
	case api.GoneWaiting, api.GoneRunning:
		w.row.Forsaken[f-api.GoneWaiting].Add(1)
	}
}

// observe brings this worker's row up to date with its permits.
func (w *worker) observe(inUse, waiting int) {
	w.row.InUse.Set(int64(inUse))
	w.row.Waiting.Set(int64(waiting))
	w.observeLayer(api.Compute, inUse, waiting)
}
