package repository

import (
	"errors"
	"reflect"
	"slices"

	"preforkd/internal/ipc"
)

// Pending is a set that has been prepared beside the one that is served. Exactly one of
// Commit and Drop is called, and no other Prepare of the same Repository before that.
type Pending struct {
	r     *Repository
	next  *set
	fresh []*Model
}

// Prepare makes the set of files without serving it: models that are served already, with the
// same content and settings, are those, the others are loaded. If any is bad, the error is
// a *LoadError that names all that are, and nothing has changed.
func (r *Repository) Prepare(files []ipc.ModelFile) (*Pending, error) {
	p := &Pending{r: r}
	have := r.set.Load()
	var models []*Model
	var bad []BadFile
	for _, f := range files {
		if slices.ContainsFunc(models, func(m *Model) bool { return m.Name == f.Name && m.Version == f.Version }) {
			bad = append(bad, BadFile{f.Name, f.Version, f.Source, errors.New("this version is listed twice")})
			continue
		}
		m, err := have.models[f.Name].find(f.Version)
		if err != nil || !m.is(&f) {
			if m, err = r.load(f); err != nil {
				bad = append(bad, BadFile{f.Name, f.Version, f.Source, err})
				continue
			}
			p.fresh = append(p.fresh, m)
		}
		models = append(models, m)
	}
	if len(bad) > 0 {
		closeAll(p.fresh)
		return nil, &LoadError{bad}
	}
	p.next = newSet(models)
	return p, nil
}

// is tells whether m was loaded from f as it is.
func (m *Model) is(f *ipc.ModelFile) bool {
	return m.Digest == f.Digest && m.Row == f.Row && reflect.DeepEqual(m.Settings, f.Options)
}

// Fresh returns the models that were loaded. Nobody else runs them before Commit.
func (p *Pending) Fresh() []*Model { return p.fresh }

// Drop frees what was loaded.
func (p *Pending) Drop() { closeAll(p.fresh) }

// Commit serves the set from now on. It returns what frees the models that it has not, once
// every Reader has gone that may have found one of them: retire waits for that.
func (p *Pending) Commit() (retire func()) {
	before := p.r.set.Swap(p.next)
	gone := slices.DeleteFunc(slices.Clone(before.every), func(m *Model) bool { return slices.Contains(p.next.every, m) })
	return func() {
		if len(gone) == 0 {
			return
		}
		p.r.retires.Lock()
		defer p.r.retires.Unlock()
		p.r.readers.wait()
		closeAll(gone)
	}
}
