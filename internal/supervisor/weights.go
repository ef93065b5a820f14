package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/control"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/slot"
)

// Workers report what their models take (worker/weights.go). From that operators see whether
// weights are shared in fact; and a prepared model that a worker could not load is made anew.

// memoryEvent is what w has reported.
type memoryEvent struct {
	w      *worker
	report ipc.MemoryReport
}

// hearMemory answers ipc.ControlMemory for w.
func (s *Supervisor) hearMemory(w *worker) control.Handler {
	return func(_ context.Context, body json.RawMessage) (any, error) {
		var r ipc.MemoryReport
		if err := json.Unmarshal(body, &r); err != nil || len(r.Models) > ipc.MemoryReportModels {
			return nil, fmt.Errorf("memory %.200s: of which models?", body)
		}
		s.send(memoryEvent{w, r})
		return nil, nil
	}
}

// modelOf names a model of a pool by what is prepared of it.
type modelOf struct{ pool, name, version, prepared string }

// onMemory keeps what w has reported, tells of weights that are not shared, and has those made anew
// that could not be loaded.
func (s *Supervisor) onMemory(e memoryEvent) {
	if e.report.First {
		e.w.models = nil
	}
	p := e.w.slot.pool
	for _, m := range e.report.Models {
		e.w.models = append(e.w.models, m)
		i := slices.IndexFunc(p.models, func(f ipc.ModelFile) bool { return f.Name == m.Name && f.Version == m.Version })
		if i < 0 || p.models[i].Prepared == "" {
			continue
		}
		key := modelOf{p.name, m.Name, m.Version, p.models[i].Prepared}
		switch {
		case m.Plain != "":
			s.renew(p, key, m.Plain)
		case m.Lost != "" && s.lost[key] == "":
			s.lost[key] = m.Lost
			s.emit(s.modelEvent(e.w, "memory", m, "weights not shared: "+m.Lost))
		case m.Lost == "" && !m.Beside:
			delete(s.lost, key)
		}
	}
}

func (s *Supervisor) modelEvent(w *worker, kind string, m ipc.ModelMemory, text string) admin.Event {
	event := s.workerEvent(w, kind, fmt.Sprintf("model %s version %s: %s", m.Name, m.Version, text))
	event.Model, event.Version = m.Name, m.Version
	return event
}

// renewedEvent: what was prepared of a pool's models has been looked at, and made anew where it
// was not whole.
type renewedEvent struct {
	pool   *pool
	had    []ipc.ModelFile
	models []ipc.ModelFile
	lease  *cache.Lease
	err    error
}

// renew has the model of key prepared again, beside the loop and once for each generation: the
// next worker loads it. Those that serve have their copies and keep them.
func (s *Supervisor) renew(p *pool, key modelOf, why string) {
	if p.gen != s.gen || p.trial || s.stopping != stopNot || s.renewed[key] == s.gen.number || s.renewing {
		return
	}
	s.renewing, s.renewed[key] = true, s.gen.number
	s.log.Warn("preparing a model anew: a worker could not load what was prepared", "pool", p.name, "model", key.name, "version", key.version, "err", why)
	had := slices.Clone(p.models)
	i := slices.IndexFunc(had, func(m ipc.ModelFile) bool { return m.Name == key.name && m.Version == key.version })
	one := slices.Clone(had[i : i+1])
	go func() { // ends with its event
		lease, err := cache.Hold(one) // what is damaged loses its name
		if err == nil {
			s.prepareModels(p, one, lease)
		}
		models := slices.Clone(had)
		models[i] = one[0]
		s.send(renewedEvent{p, had, models, lease, err})
	}()
}

// onRenewed has the next workers start from what was made. A change of models that came meanwhile
// has made manifests of its own: they name the same path.
func (s *Supervisor) onRenewed(e renewedEvent) {
	s.renewing = false
	p := e.pool
	same := slices.EqualFunc(p.models, e.had, func(a, b ipc.ModelFile) bool {
		return a.Name == b.Name && a.Version == b.Version && a.Digest == b.Digest && a.Prepared == b.Prepared
	})
	switch {
	case e.err != nil:
		s.log.Warn("model not prepared anew", "pool", p.name, "err", e.err)
		return
	case p.gen != s.gen || !same || s.stopping != stopNot || s.change != nil:
		e.lease.Close() // whoever has it by now looked at it
		return
	}
	fd, err := p.manifestOf(e.models, p.unloaded)
	if err != nil {
		s.log.Warn("model not prepared anew", "pool", p.name, "err", err)
		e.lease.Close()
		return
	}
	activation.Close(p.manifest)
	p.manifest, p.models = fd, e.models
	s.gen.leases = append(s.gen.leases, e.lease)
	s.keepModels()
}

// keepModels has the main process keep the generation in charge as it is by now, with the leases
// that its models need.
func (s *Supervisor) keepModels() {
	g := s.gen
	before := len(g.leaseDescriptors())
	g.models = nil
	for _, p := range g.pools {
		g.addModels(p.models)
	}
	g.leases = slices.DeleteFunc(g.leases, func(l *cache.Lease) bool { return !l.Keep(g.models) })
	s.keepGeneration(s.current())
	for i := len(g.leaseDescriptors()); i < before; i++ {
		s.keeper.remove(keptName(g.number, "lease", strconv.Itoa(i)))
	}
}

// describeWeights says of a model of the generation in charge what its workers have of it; nil:
// none has said it.
func (s *Supervisor) describeWeights(f *ipc.ModelFile) *admin.Weights {
	d := &admin.Weights{Kind: weightsKind(f), Prepared: f.Shared}
	var plain []string
	for _, p := range s.gen.pools {
		for _, w := range s.servingOf(p) {
			for _, m := range w.models {
				if m.Name != f.Name || m.Version != f.Version || w.slot.pool.gen != s.gen {
					continue
				}
				d.Workers++
				d.Private = max(d.Private, m.Private)
				d.Shared = max(d.Shared, m.Shared)
				if m.Plain != "" {
					plain = append(plain, slotName(p, w.slot))
				}
			}
		}
		if why := s.lost[modelOf{p.name, f.Name, f.Version, f.Prepared}]; why != "" && f.Prepared != "" {
			d.Kind, d.Notice = admin.WeightsLost, why
		}
	}
	if len(plain) > 0 && f.Shared > 0 {
		d.Kind = admin.WeightsLost
		d.Notice = fmt.Sprintf("what was prepared could not be loaded by %s, which has a copy of its own until it is restarted", strings.Join(plain, ", "))
		if len(plain) > 1 {
			d.Notice = fmt.Sprintf("what was prepared could not be loaded by %s, which have copies of their own until they are restarted", strings.Join(plain, ", "))
		}
	}
	if d.Workers == 0 {
		return nil
	}
	return d
}

// slotName is how operators name a slot.
func slotName(p *pool, sl *poolSlot) string {
	return fmt.Sprintf("slot %d of pool %s", sl.index, p.name)
}

// weightsKind is where a model's weights are if all is well.
func weightsKind(f *ipc.ModelFile) string {
	switch {
	case f.Prepared == "":
		return admin.WeightsCopies
	case f.Shared == 0:
		return admin.WeightsGraph
	}
	return admin.WeightsShared
}

// measuredPrivate is the most that a ready worker of p has of its own; 0: not known.
func (s *Supervisor) measuredPrivate(p *pool) (most uint64) {
	for _, sl := range p.slots {
		if w := sl.worker; w != nil && w.state == slot.Ready {
			most = max(most, uint64(max(w.row.Private.Load(), 0)))
		}
	}
	return most
}
