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
	progress func(admin.Progress)
	done     chan reloadEnd // with room for one
}

type reloadEnd struct {
	result admin.ReloadResult
	err    error
}

// purpose is what a reload is to run: what the configuration says now, or what an earlier
// generation had.
type purpose struct {
	dryRun bool
	back   bool   // a rollback
	to     uint64 // which generation; 0: the one before the one in charge

	takeover bool // the workers of a supervisor that died are replaced by our own

	upgrade  bool   // this program is replaced
	program  string // by which; empty: what lies at its path
	environ  string // its environment, each variable ending with a NUL; empty: ours
	succeeds bool   // the same, in the new program
}

// operation is the reload or the rollback under way.
type operation struct {
	purpose
	hup         bool // a signal asked for it
	target      *kept
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
	short       bool                              // it is being taken back for want of memory
	before      map[*scoreboard.Row]rollout.Tally // answers when the trial began
}

// queued is an operation that waits for the one under way to end: a scaling, a restart,
// a change of models, or otherwise a reload.
type queued struct {
	scale   *scaling
	restart *restarting
	change  *changing
	purpose
	who *waiter // nil for a signal
}

// reload begins a reload or a rollback, or joins or queues one. who is nil for a signal.
func (s *Supervisor) reload(p purpose, noWait bool, who *waiter) {
	if err := s.mayOperate(p.String(), noWait); err != nil {
		who.end(reloadEnd{err: err})
		return
	}
	s.queued = append(s.queued, queued{purpose: p, who: who})
	s.next()
}

// String returns the command that has this purpose.
func (p purpose) String() string {
	switch {
	case p.takeover:
		return "takeover"
	case p.back:
		return "rollback"
	case p.upgrade, p.succeeds:
		return "upgrade"
	}
	return "reload"
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
		return article(s.op.purpose.String())
	case s.scale != nil:
		return "a change of size"
	case s.restarts != nil:
		return "the replacement of a worker"
	case s.change != nil:
		return "a change of models"
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

// article returns what with the right one.
func article(what string) string {
	if what == "upgrade" {
		return "an " + what
	}
	return "a " + what
}

// next begins what waits longest, once nothing is under way.
func (s *Supervisor) next() {
	for len(s.queued) > 0 && s.busy() == "" {
		first := s.queued[0]
		s.settleRounds()
		switch {
		case s.stopping != stopNot:
			s.queued = s.queued[1:]
			first.who.end(reloadEnd{err: stoppingFailure(first.purpose.String())})
			first.scale.end(scaleEnd{err: stoppingFailure("scale")})
			first.restart.end(restartEnd{err: stoppingFailure("restart")})
			first.change.end(changeEnd{err: stoppingFailure("change of models")})
		case first.scale != nil:
			s.queued = s.queued[1:]
			s.beginScale(first.scale)
		case first.restart != nil:
			s.queued = s.queued[1:]
			s.beginRestart(first.restart)
		case first.change != nil:
			s.queued = s.queued[1:]
			s.beginChange(first.change)
		default:
			s.nextReload(first.purpose)
		}
	}
}

// nextReload begins a reload for all who asked for the same: whoever asks while one is
// under way shares the next one.
func (s *Supervisor) nextReload(p purpose) {
	op := &operation{purpose: p, began: s.now(), old: s.gen}
	s.queued = slices.DeleteFunc(s.queued, func(q queued) bool {
		if q.scale != nil || q.restart != nil || q.change != nil || q.purpose != p {
			return false
		}
		if q.who != nil {
			op.waiters = append(op.waiters, q.who)
		} else {
			op.hup = true
		}
		return true
	})
	if p.takeover {
		op.target = s.current()
	}
	if p.back {
		var err error
		if op.target, err = s.find(p.to); err != nil { // nothing has begun
			for _, w := range op.waiters {
				w.end(reloadEnd{err: err})
			}
			return
		}
	}
	if p.upgrade || p.back && s.another(op.target.gen) {
		op.upgrade = true
		s.beginUpgrade(op)
		return
	}
	s.begin(op)
}

// pair is a pool in both generations; nil where a generation does not have it.
type pair struct{ old, next *pool }

// pairsOf pairs the pools of two generations: first those of next, helpers before the workers that
// ask them and otherwise in their order, then those that it does not have.
func pairsOf(old, next *generation) (pairs []pair) {
	for _, helpers := range []bool{true, false} {
		for _, p := range next.pools {
			if p.isHelper() == helpers {
				pairs = append(pairs, pair{old.pool(p.name), p})
			}
		}
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
