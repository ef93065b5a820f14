package supervisor

import (
	"slices"
	"time"

	"preforkd/internal/ipc"
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
	rollout     *rollout.Rollout
	events      []rollout.Event // that arose while actions were carried out
	busy        bool
	deadline    time.Duration // of the rollout's clock; 0: stopped
	canary      *worker
	before      [2]rollout.Tally // answers of canary and others when the trial began
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

// name returns which worker of op's generations w is.
func (op *operation) name(w *worker) rollout.Worker {
	gen := rollout.Old
	if w.slot.pool.gen == op.next {
		gen = rollout.New
	}
	return rollout.Worker{Gen: gen, Slot: w.slot.index}
}

func (op *operation) slotOf(w rollout.Worker) *poolSlot {
	if w.Gen == rollout.New {
		return op.next.pool.slots[w.Slot]
	}
	return op.old.pool.slots[w.Slot]
}
