package supervisor

import (
	"maps"
	"slices"
	"time"

	"preforkd/internal/supervisor/cache"
)

// models.watch: directories of models are looked at from time to time. What has appeared or
// changed there, and has not changed again until the next look, is loaded as by an operator.

// watching is what was seen of one directory.
type watching struct {
	gen   *generation
	last  map[string]string // at the last look, by model, as cache.Look has it
	taken map[string]string // what is served, or was tried
}

// look takes notice of how the directory is now, and returns the models to load. Those in
// known are served, or have been unloaded: what lies there at the first look is what was read
// for them.
func (w *watching) look(now map[string]string, known func(name string) bool) (take []string) {
	first := w.taken == nil
	if first {
		w.taken = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		switch state := now[name]; {
		case first && known(name):
			w.taken[name] = state
		case w.taken[name] == state || w.last[name] != state:
		default:
			w.taken[name] = state
			take = append(take, name)
		}
	}
	maps.DeleteFunc(w.taken, func(name, _ string) bool { return now[name] == "" }) // to be taken when it comes back
	w.last = now
	return take
}

// lookedEvent: the directories are as seen says.
type lookedEvent struct {
	gen  *generation
	seen map[string]map[string]string // by pool whose directory it is
}

// watchEvery is how often to look; 0: never.
func (s *Supervisor) watchEvery() time.Duration { return s.gen.cfg.Models.Watch }

// lookAtModels looks at each directory once, beside the loop.
func (s *Supervisor) lookAtModels() {
	s.watchAt = s.now() + s.watchEvery()
	if s.looking || !s.everReady || s.stopping != stopNot || !s.inCharge {
		return
	}
	s.looking = true
	e := lookedEvent{s.gen, map[string]map[string]string{}}
	pools, seen := map[string]string{}, map[string]bool{}
	for _, p := range s.gen.pools {
		if dir := p.cfg.Models.Dir; !p.other && !seen[dir] {
			pools[p.name], seen[dir] = dir, true
		}
	}
	go func() { // ends with its event
		for pool, dir := range pools {
			now, err := cache.Look(dir)
			if err != nil {
				s.log.Warn("model directory not looked at", "dir", dir, "err", err)
				continue
			}
			e.seen[pool] = now
		}
		s.send(e)
	}()
}

// onLooked has those models loaded that have appeared or changed.
func (s *Supervisor) onLooked(e lookedEvent) {
	s.looking = false
	if s.gen != e.gen || s.stopping != stopNot {
		return
	}
	for name, now := range e.seen {
		p := e.gen.pool(name)
		w := s.watched[name]
		if w == nil || w.gen != e.gen {
			w = &watching{gen: e.gen}
			s.watched[name] = w
		}
		for _, model := range w.look(now, p.knows) {
			s.changeModels(&changing{modelOrder: modelOrder{name: model, pool: name, by: "watch"}})
		}
	}
}

// knows tells whether p serves the model called name, or has had it unloaded.
func (p *pool) knows(name string) bool {
	for _, m := range p.models {
		if m.Name == name {
			return true
		}
	}
	for _, u := range p.unloaded {
		if u.Name == name {
			return true
		}
	}
	return false
}
