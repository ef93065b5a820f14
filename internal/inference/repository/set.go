package repository

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"preforkd/internal/inference"
)

// Repository is a set of loaded models, which another set replaces as a whole.
type Repository struct {
	engine  inference.Engine
	set     atomic.Pointer[set]
	readers readers
	retires sync.Mutex // held by whoever waits for readers
}

// set is what is served at one time. It never changes.
type set struct {
	models map[string]*versions
	all    []*Model // by name, the version that is served without asking for one
	every  []*Model // by name, the lowest version first
}

// versions are those of one model.
type versions struct {
	served *Model
	byName map[string]*Model
}

// newSet makes a set of models, no two of which have the same name and version.
func newSet(models []*Model) *set {
	s := &set{models: make(map[string]*versions), every: slices.Clone(models)}
	for _, m := range models {
		v := s.models[m.Name]
		if v == nil {
			v = &versions{byName: make(map[string]*Model)}
			s.models[m.Name] = v
		}
		v.byName[m.Version] = m
	}
	for _, v := range s.models {
		v.served = serve(v.byName)
		s.all = append(s.all, v.served)
	}
	slices.SortFunc(s.all, func(a, b *Model) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.every, func(a, b *Model) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), compareVersions(a.Version, b.Version))
	})
	return s
}

// NewStop returns a Stop for runs of these models.
func (r *Repository) NewStop() (inference.Stop, error) { return r.engine.NewStop() }

// Find returns the model, in the version that is served when version is empty. The
// error is ErrUnknownModel or ErrUnknownVersion.
func (r *Repository) Find(name, version string) (*Model, error) {
	return r.set.Load().models[name].find(version)
}

// FindBytes is Find for a name and a version that are parts of a request.
func (r *Repository) FindBytes(name, version []byte) (*Model, error) {
	v := r.set.Load().models[string(name)]
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
func (r *Repository) All() []*Model { return r.set.Load().all }

// Every returns each version of each model, by name and then from the lowest version on.
// Callers do not change the slice.
func (r *Repository) Every() []*Model { return r.set.Load().every }

// Versions returns the loaded versions of the model called name, the lowest first.
func (r *Repository) Versions(name string) []string {
	var names []string
	for _, m := range r.set.Load().every {
		if m.Name == name {
			names = append(names, m.Version)
		}
	}
	return names
}

// Close frees every model. An error of one does not keep the others; it is of no use
// to the caller, who is about to close the engine.
func (r *Repository) Close() {
	closeAll(r.set.Swap(&set{}).every)
}

func closeAll(models []*Model) {
	for _, m := range models {
		_ = m.model.Close()
	}
}
