package repository

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
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
	// Tag is whatever its user keeps of it. It is set before the first run.
	Tag any

	mu    sync.Mutex // held while model runs
	model inference.Model
}

// Inputs returns the model's inputs in its own order. Callers do not change them.
func (m *Model) Inputs() []inference.TensorInfo { return m.model.Inputs() }

// Outputs returns the model's outputs in its own order. Callers do not change them.
func (m *Model) Outputs() []inference.TensorInfo { return m.model.Outputs() }

// Run is inference.Model's Run, for any goroutine: a run waits for the one before it.
// With one permit in a worker it never waits.
func (m *Model) Run(in, out []inference.Tensor) error { return m.RunUntil(nil, in, out) }

// RunUntil is Run that ends early once stop is set, as far as the engine can.
func (m *Model) RunUntil(stop inference.Stop, in, out []inference.Tensor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.model.RunUntil(stop, in, out)
}

// Repository is a set of loaded models.
type Repository struct {
	engine inference.Engine
	models map[string]*versions
	all    []*Model // by name, the version that is served without asking for one
}

// versions are those of one model.
type versions struct {
	served *Model
	byName map[string]*Model
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
	r := &Repository{engine: engine, models: make(map[string]*versions)}
	var bad []BadFile
	for _, f := range files {
		if err := r.load(engine, f); err != nil {
			bad = append(bad, BadFile{f.Name, f.Version, f.Source, err})
		}
	}
	if len(bad) > 0 {
		r.Close()
		return nil, &LoadError{bad}
	}
	for _, v := range r.models {
		v.served = serve(v.byName)
		r.all = append(r.all, v.served)
	}
	slices.SortFunc(r.all, func(a, b *Model) int { return cmp.Compare(a.Name, b.Name) })
	return r, nil
}

func (r *Repository) load(engine inference.Engine, f ipc.ModelFile) error {
	v := r.models[f.Name]
	if v == nil {
		v = &versions{byName: make(map[string]*Model)}
	}
	if other := v.byName[f.Version]; other != nil {
		return errors.New("this version is listed twice")
	}
	loaded, err := engine.Load(f.Path)
	if err != nil {
		return err
	}
	m := &Model{
		Name: f.Name, Version: f.Version, Digest: f.Digest, Platform: engine.Platform(),
		Row: f.Row, Settings: f.Options, model: loaded,
	}
	if err := declared(loaded, &f.Options); err != nil {
		return errors.Join(err, loaded.Close())
	}
	if m.Predict, err = bind(loaded, f.Options.Predict); err != nil {
		return errors.Join(err, loaded.Close())
	}
	v.byName[f.Version] = m
	r.models[f.Name] = v
	return nil
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

// NewStop returns a Stop for runs of these models.
func (r *Repository) NewStop() (inference.Stop, error) { return r.engine.NewStop() }

// Find returns the model, in the version that is served when version is empty. The
// error is ErrUnknownModel or ErrUnknownVersion.
func (r *Repository) Find(name, version string) (*Model, error) {
	return r.models[name].find(version)
}

// FindBytes is Find for a name and a version that are parts of a request.
func (r *Repository) FindBytes(name, version []byte) (*Model, error) {
	v := r.models[string(name)]
	if v != nil && len(version) > 0 {
		if m := v.byName[string(version)]; m != nil { // no string is made for a look-up
			return m, nil
		}
		return nil, ErrUnknownVersion
	}
	return v.find("")
}

func (v *versions) find(version string) (*Model, error) {
	if v == nil {
		return nil, ErrUnknownModel
	}
	if version == "" {
		return v.served, nil
	}
	if m := v.byName[version]; m != nil {
		return m, nil
	}
	return nil, ErrUnknownVersion
}

// All returns the models in the version that is served, by name. Callers do not
// change the slice.
func (r *Repository) All() []*Model { return r.all }

// Versions returns the loaded versions of the model called name, the lowest first.
func (r *Repository) Versions(name string) []string {
	v := r.models[name]
	if v == nil {
		return nil
	}
	names := make([]string, 0, len(v.byName))
	for version := range v.byName {
		names = append(names, version)
	}
	slices.SortFunc(names, compareVersions)
	return names
}

// Close frees every model. An error of one does not keep the others; it is of no use
// to the caller, who is about to close the engine.
func (r *Repository) Close() {
	for _, v := range r.models {
		for _, m := range v.byName {
			_ = m.model.Close()
		}
	}
	r.models, r.all = nil, nil
}
