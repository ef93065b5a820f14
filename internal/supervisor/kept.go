package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/cache"
)

// keptGenerations is how many committed generations a service can tell of and return to,
// the one in charge included.
const keptGenerations = 3

// kept is a generation that was committed, and what it takes to return to it: of gen the
// manifest, the programs and the lease on its models. These are descriptors, and the rest
// is text, so that all of it can be handed to another process.
type kept struct {
	gen         *generation
	committed   time.Time
	cause       string   // start, HUP, reload command, rollback to N
	origin      uint64   // after a rollback, whose manifest it has; 0: it was read from configuration
	differences []string // from the one before
}

// keep records that op has put its generation in charge. What is beyond the number that is
// kept goes in forget, when its workers have ended.
func (s *Supervisor) keep(op *operation) {
	k := &kept{gen: op.next, committed: time.Now(), cause: op.cause(), origin: op.number(), differences: op.differences}
	if op.takeover { // the same again, with workers of our own
		k.origin, k.differences = op.target.origin, op.target.differences
		s.kept[len(s.kept)-1], s.outdated = k, append(s.outdated, op.target.gen)
	} else {
		s.kept = append(s.kept, k)
	}
	s.keepGeneration(k)
}

// forget gives back the generations that are too old to be kept, and returns them.
func (s *Supervisor) forget() (forgotten []*generation) {
	for len(s.kept) > keptGenerations {
		s.outdated = append(s.outdated, s.kept[0].gen)
		s.kept = slices.Delete(s.kept, 0, 1)
	}
	for _, g := range s.outdated {
		s.unkeep(g)
		g.release(s.gen)
		forgotten = append(forgotten, g)
	}
	s.outdated = nil
	return forgotten
}

// current returns the generation in charge.
func (s *Supervisor) current() *kept { return s.kept[len(s.kept)-1] }

// find returns the generation that an operator wants back; 0 is the one before the one in
// charge.
func (s *Supervisor) find(number uint64) (*kept, error) {
	var others []string
	for _, k := range s.kept[:len(s.kept)-1] {
		if k.gen.number == number {
			return k, nil
		}
		others = append(others, fmt.Sprint(k.gen.number))
	}
	now := s.gen.number
	f := &ipc.Failure{Exit: ipc.ExitUsage, Try: "preforkd rollback " + strings.Join(others, ", or ") + "; preforkd generations tells what they were"}
	switch {
	case len(others) == 0 && (number == 0 || number == now):
		return nil, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: fmt.Sprintf("rollback: generation %d is the only one that this service has had: there is none to return to", now),
			Try: "correct the configuration and preforkd reload",
		}
	case number == 0:
		return s.kept[len(s.kept)-2], nil
	case number == now:
		f.What = fmt.Sprintf("rollback: generation %d serves already", now)
	case len(others) == 0:
		f.What = fmt.Sprintf("rollback: there is no generation %d; there is only %d, which serves", number, now)
		f.Try = "correct the configuration and preforkd reload"
	default:
		f.What = fmt.Sprintf("rollback: there is no generation %d any more, or none yet; there are %s, and %d serves", number, strings.Join(others, ", "), now)
	}
	return nil, f
}

// again makes a generation of number from what k had. It runs beside the loop, which
// neither changes nor gives back k meanwhile: one operation is under way.
func (s *Supervisor) again(k *kept, old *generation, number uint64) (_ *generation, _ []string, err error) {
	cfg := *k.gen.cfg
	g := s.emptyGeneration(number, &cfg)
	defer func() {
		if err != nil {
			g.release(old)
			err = k.missing(err)
		}
	}()
	if err := g.guardAgain(k.gen, old); err != nil {
		return nil, nil, err
	}
	for _, had := range k.gen.pools {
		p := s.newPool(g, had.name)
		p.models, p.unloaded, p.identity = slices.Clone(had.models), had.unloaded, had.identity
		if p.programs, err = had.programs.again(); err != nil {
			return nil, nil, err
		}
	}
	lease, err := cache.Hold(k.gen.models)
	if err != nil {
		return nil, nil, err
	}
	g.leases = append(g.leases, lease)
	for _, p := range g.pools {
		s.prepareModels(p, p.models, lease)
	}
	if err := s.complete(g, old); err != nil {
		return nil, nil, err
	}
	return g, differences(s.cfg, old, g), nil
}

// missing says what a return to k lacks.
func (k *kept) missing(err error) error {
	f := &ipc.Failure{Exit: ipc.ExitOther, What: err.Error()}
	errors.As(err, &f)
	return &ipc.Failure{Exit: f.Exit, What: fmt.Sprintf("rollback to generation %d: %s", k.gen.number, f.What), Try: f.Try, Err: err}
}

// failed says what was taken back.
func (op *operation) failed() string {
	switch {
	case op.back:
		return fmt.Sprintf("rollback to generation %d taken back", op.number())
	case op.upgrade:
		return "upgrade taken back"
	case op.succeeds:
		return "the new program's workers"
	}
	return "reload rolled back"
}

// advice says what to do after that.
func (op *operation) advice() string {
	if op.upgrade || op.succeeds {
		return "correct it and upgrade again; the old program serves"
	}
	if op.back {
		return fmt.Sprintf("generation %d serves; preforkd generations tells which others there are", op.old.number)
	}
	return "correct it and reload again; the old generation serves"
}

// sweep removes from the caches of generations what neither this nor another service may
// still need, beside the loop. Some may be nil.
func (s *Supervisor) sweep(generations ...*generation) {
	dirs := map[string]int64{}
	for _, g := range generations {
		if g != nil {
			dirs[g.cfg.Cache.Dir] = int64(s.gen.cfg.Cache.PreparedMax)
		}
	}
	s.sweeps.Go(func() {
		s.keeper.settle() // the main process has leases, too, until it has read that they are given back
		for _, dir := range slices.Sorted(maps.Keys(dirs)) {
			n, err := cache.Sweep(dir)
			evicted, evictErr := cache.Evict(dir, dirs[dir])
			if err := errors.Join(err, evictErr); err != nil {
				s.log.Warn("model cache not swept", "dir", dir, "err", err)
			}
			if n+evicted > 0 {
				s.log.Info("model cache swept", "dir", dir, "removed", n, "prepared", evicted)
			}
		}
	})
}

// cause says what began op.
func (op *operation) cause() string {
	switch {
	case op.takeover:
		return "the supervisor died"
	case op.back:
		return fmt.Sprintf("rollback to %d", op.number())
	case op.succeeds:
		return "upgrade"
	case op.hup && len(op.waiters) > 0:
		return "HUP, reload command"
	case op.hup:
		return "HUP"
	}
	return "reload command"
}

// number returns the generation that op returns to, 0 if it is no rollback.
func (op *operation) number() uint64 {
	if op.target == nil || op.takeover {
		return 0
	}
	return op.target.gen.number
}

// Generations returns those that were committed, the one in charge first.
func (v service) Generations(ctx context.Context) (all []admin.Generation, err error) {
	err = v.s.ask(ctx, func() {
		shown := v.s.kept[max(len(v.s.kept)-keptGenerations, 0):] // the oldest may be on its way out
		for _, k := range slices.Backward(shown) {
			all = append(all, k.describe(k.gen == v.s.gen))
		}
	})
	return all, err
}

func (k *kept) describe(serves bool) admin.Generation {
	g := admin.Generation{
		Number: k.gen.number, Time: k.committed, Cause: k.cause, RollbackTo: k.origin, Serves: serves,
		Differences: append([]string{}, k.differences...), Models: []admin.ModelVersion{},
	}
	for _, m := range k.gen.models {
		g.Models = append(g.Models, admin.ModelVersion{Name: m.Name, Version: m.Version, Digest: m.Digest})
	}
	return g
}
