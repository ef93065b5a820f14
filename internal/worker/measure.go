package worker

import (
	"sync/atomic"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
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
	// aside is set while models are loaded beside what serves: until they serve, their runs
	// are no business of the row's. Only the goroutine that loads uses these.
	aside bool
	files map[string]*ipc.ModelFile // by the path that is loaded
	fresh []*watchedModel           // loaded aside
}

// Load announces path by the name that the operator gave it.
func (e *watched) Load(path string) (inference.Model, error) { return e.load(path, e.Engine.Load) }

// LoadPrepared does so, too.
func (e *watched) LoadPrepared(dir string) (inference.Model, error) {
	return e.load(dir, e.Engine.LoadPrepared)
}

func (e *watched) load(path string, load func(string) (inference.Model, error)) (inference.Model, error) {
	f := e.files[path]
	if f != nil {
		_ = e.w.supers.Send("STATUS=loading " + f.Source)
	}
	var m inference.Model
	memory, err := e.w.measured(f, e.aside, func() (err error) {
		m, err = load(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	wm := &watchedModel{Model: m, w: e.w, memory: memory}
	if e.aside {
		e.fresh = append(e.fresh, wm)
	}
	wm.serves.Store(!e.aside)
	return wm, nil
}

// calls has paths called by where the operator has put the files.
func (e *watched) calls(files []ipc.ModelFile) {
	e.files = make(map[string]*ipc.ModelFile, 2*len(files))
	for i := range files {
		e.files[files[i].Path], e.files[files[i].Prepared] = &files[i], &files[i]
	}
}

type watchedModel struct {
	inference.Model
	w      *worker
	memory loaded
	serves atomic.Bool
}

// Run is RunUntil without a stop.
func (m *watchedModel) Run(in, out []inference.Tensor) error { return m.RunUntil(nil, in, out) }

// RunUntil runs the model and says so in the row.
func (m *watchedModel) RunUntil(stop inference.Stop, in, out []inference.Tensor) error {
	if !m.serves.Load() {
		return m.Model.RunUntil(stop, in, out)
	}
	row := m.w.row
	start := row.BusySince.Mark()
	err := m.Model.RunUntil(stop, in, out)
	row.BusySince.Clear()
	row.EngineCalls.Add(1)
	row.EngineNs.Add(uint64(start.Since()))
	return err
}
