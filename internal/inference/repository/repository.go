package repository

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// Errors of Find.
var (
	ErrUnknownModel   = errors.New("unknown model")
	ErrUnknownVersion = errors.New("unknown version of the model")
)

// Model is one version of one model, loaded.
type Model struct {
	Name     string
	Version  string
	Digest   string // hexadecimal SHA-256 over the files of the version
	Platform string // the engine's, such as "onnxruntime_onnx"
	Row      int    // of the scoreboard's section models, from 1 on; 0: none
	Settings ipc.ModelSettings
	Predict  Predict
	// Plain is why the model was not loaded as it is prepared, at the price of its weights in
	// memory of the process's own; nil: it was, or there is nothing prepared.
	Plain error
	// Tag is whatever its user keeps of it. It is set before the first run.
	Tag any

	mu    sync.Mutex // held while model runs
	model inference.Model
}

// Inputs returns the model's inputs in its own order. Callers do not change them.
func (m *Model) Inputs() []inference.TensorInfo { return m.model.Inputs() }

// Outputs returns the model's outputs in its own order. Callers do not change them.
func (m *Model) Outputs() []inference.TensorInfo { return m.model.Outputs() }

// Loaded is what the engine has loaded, as its Load returned it.
func (m *Model) Loaded() inference.Model { return m.model }

// Run is inference.Model's Run, for any goroutine: a run waits for the one before it.
// With one permit in a worker it never waits.
func (m *Model) Run(in, out []inference.Tensor) error { return m.RunUntil(nil, in, out) }

// RunUntil is Run that ends early once stop is set, as far as the engine can.
func (m *Model) RunUntil(stop inference.Stop, in, out []inference.Tensor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.model.RunUntil(stop, in, out)
}

// BadFile is one model that could not be loaded.
type BadFile struct {
	Name, Version string
	Source        string // where the operator put it
	Err           error
}

// LoadError is the error of Load. It names every bad file.
type LoadError struct{ Bad []BadFile }

// Error returns one line for each bad file.
func (e *LoadError) Error() string {
	var b strings.Builder
	if len(e.Bad) > 1 {
		fmt.Fprintf(&b, "%d models cannot be loaded:\n  ", len(e.Bad))
	}
	for i, f := range e.Bad {
		if i > 0 {
			b.WriteString("\n  ")
		}
		fmt.Fprintf(&b, "load model %q version %s from %s: %v", f.Name, f.Version, f.Source, f.Err)
	}
	return b.String()
}

// Unwrap returns the causes.
func (e *LoadError) Unwrap() []error {
	errs := make([]error, len(e.Bad))
	for i, f := range e.Bad {
		errs[i] = f.Err
	}
	return errs
}

// Load loads every file. If any is bad, the error is a *LoadError that names all that
// are, and nothing stays loaded.
func Load(engine inference.Engine, files []ipc.ModelFile) (*Repository, error) {
	r := &Repository{engine: engine}
	r.set.Store(&set{})
	p, err := r.Prepare(files)
	if err != nil {
		return nil, err
	}
	r.set.Store(p.next)
	return r, nil
}

func (r *Repository) load(f ipc.ModelFile) (*Model, error) {
	var loaded inference.Model
	var plain, err error
	if f.Prepared != "" {
		loaded, plain = r.engine.LoadPrepared(f.Prepared)
	}
	if f.Prepared == "" || plain != nil {
		if loaded, err = r.engine.Load(f.Path); err != nil {
			return nil, err
		}
	}
	m := &Model{
		Name: f.Name, Version: f.Version, Digest: f.Digest, Platform: r.engine.Platform(),
		Row: f.Row, Settings: f.Options, Plain: plain, model: loaded,
	}
	if err := declared(loaded, &f.Options); err != nil {
		return nil, errors.Join(err, loaded.Close())
	}
	if m.Predict, err = bind(loaded, f.Options.Predict); err != nil {
		return nil, errors.Join(err, loaded.Close())
	}
	return m, nil
}

// serve returns the version that is served to those who name none: the one of the
// settings, else the highest number.
func serve(byName map[string]*Model) *Model {
	var best *Model
	for _, m := range byName {
		if m.Settings.Version == m.Version {
			return m
		}
		if best == nil || compareVersions(m.Version, best.Version) > 0 {
			best = m
		}
	}
	return best
}

// compareVersions compares as numbers where both are, else as text.
func compareVersions(a, b string) int {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	if errX == nil && errY == nil && x != y {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}
