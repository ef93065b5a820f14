package supervisor

import (
	"slices"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
)

// waiter is somebody who waits for the end of a reload.
type waiter struct {
	request  admin.ReloadRequest
	progress func(admin.Progress)
	done     chan reloadEnd // with room for one
}

type reloadEnd struct {
	result admin.ReloadResult
	err    error
}

// operation is the reload under way.
type operation struct {
	dryRun      bool
	waiters     []*waiter
	began       time.Duration
	old, next   *generation // next is nil until it has been prepared
	differences []string
	pairs       []pair // the pools, in the order of their reloads
	rollout     *rollout.Joint
	events      []rollout.Event // that arose while actions were carried out
	busy        bool
	deadline    time.Duration // of the rollout's clock; 0: stopped
	clockOf     int           // of which pair that is
	canary      *worker
	before      map[*scoreboard.Row]rollout.Tally // answers when the trial began
}

// queued is an operation that waits for the one under way to end: a scaling, or
// otherwise a reload.
type queued struct {
	scale  *scaling
	dryRun bool
	who    *waiter // nil for a signal
}

// reload begins a reload, or joins or queues one. who is nil for a signal.
func (s *Supervisor) reload(request admin.ReloadRequest, who *waiter) {
	if err := s.mayOperate("reload", request.NoWait); err != nil {
		who.end(reloadEnd{err: err})
		return
	}
	s.queued = append(s.queued, queued{dryRun: request.DryRun, who: who})
	s.next()
}

// mayOperate says why what cannot be done now, nor after what is under way.
func (s *Supervisor) mayOperate(what string, noWait bool) error {
	switch {
	case s.stopping != stopNot:
		return stoppingFailure(what)
	case !s.everReady:
		return &ipc.Failure{Exit: ipc.ExitTryAgain, What: what + ": the service is still starting", Try: "wait until preforkd status shows a ready worker"}
	case noWait && s.busy() != "":
		return &ipc.Failure{Exit: ipc.ExitTryAgain, What: what + ": " + s.busy() + " is under way", Try: "try again when it has ended, or leave out --no-wait"}
	}
	return nil
}

// busy says which operation is under way: there is one at a time.
func (s *Supervisor) busy() string {
	switch {
	case s.op != nil:
		return "a reload"
	case s.scale != nil:
		return "a change of size"
	}
	return ""
}

func stoppingFailure(what string) error {
	return &ipc.Failure{Exit: ipc.ExitUnavailable, What: what + ": the service is stopping"}
}

func (w *waiter) end(e reloadEnd) {
	if w != nil {
		w.done <- e
	}
}

// next begins what waits longest, once nothing is under way.
func (s *Supervisor) next() {
	for len(s.queued) > 0 && s.busy() == "" {
		first := s.queued[0]
		switch {
		case s.stopping != stopNot:
			s.queued = s.queued[1:]
			first.who.end(reloadEnd{err: stoppingFailure("reload")})
			first.scale.end(scaleEnd{err: stoppingFailure("scale")})
		case first.scale != nil:
			s.queued = s.queued[1:]
			s.beginScale(first.scale)
		default:
			s.nextReload(first.dryRun)
		}
	}
}

// nextReload begins a reload for all who asked for the same: whoever asks while one is
// under way shares the next one.
func (s *Supervisor) nextReload(dryRun bool) {
	op := &operation{dryRun: dryRun, began: s.now(), old: s.gen}
	s.queued = slices.DeleteFunc(s.queued, func(q queued) bool {
		if q.scale != nil || q.dryRun != dryRun {
			return false
		}
		if q.who != nil {
			op.waiters = append(op.waiters, q.who)
		}
		return true
	})
	s.begin(op)
}

// pair is a pool in both generations; nil where a generation does not have it.
type pair struct{ old, next *pool }

// pairsOf pairs the pools of two generations: first those of next, in their order, then
// those that it does not have.
func pairsOf(old, next *generation) (pairs []pair) {
	for _, p := range next.pools {
		pairs = append(pairs, pair{old.pool(p.name), p})
	}
	for _, p := range old.pools {
		if next.pool(p.name) == nil {
			pairs = append(pairs, pair{p, nil})
		}
	}
	return pairs
}

// poolName returns the name of a pair.
func (op *operation) poolName(i int) string {
	if p := op.pairs[i].next; p != nil {
		return p.name
	}
	return op.pairs[i].old.name
}

// index returns which of op's pairs p is in.
func (op *operation) index(p *pool) int {
	return slices.IndexFunc(op.pairs, func(q pair) bool { return q.old == p || q.next == p })
}

// decides tells whether op, which may be nil, decides about the workers of p.
func (op *operation) decides(p *pool) bool {
	if op == nil || op.rollout == nil {
		return false
	}
	i := op.index(p)
	return i >= 0 && op.rollout.Has(i)
}

// event returns what has happened to w, of whose pool op decides.
func (op *operation) event(kind rollout.Kind, w *worker, why string) rollout.Event {
	e := rollout.Event{Kind: kind, Pool: op.index(w.slot.pool), Worker: rollout.Worker{Gen: rollout.Old, Slot: w.slot.index}, Why: why}
	if w.slot.pool.gen == op.next {
		e.Worker.Gen = rollout.New
	}
	return e
}

// slotOf returns the slot that a is about.
func (op *operation) slotOf(a rollout.Action) *poolSlot {
	if a.Worker.Gen == rollout.New {
		return op.pairs[a.Pool].next.slots[a.Worker.Slot]
	}
	return op.pairs[a.Pool].old.slots[a.Worker.Slot]
}
