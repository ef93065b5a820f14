package supervisor

import (
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

// reload begins a reload, or joins or queues one. who is nil for a signal.
func (s *Supervisor) reload(request admin.ReloadRequest, who *waiter) {
	switch {
	case s.stopping != stopNot:
		who.end(reloadEnd{err: &ipc.Failure{Exit: ipc.ExitUnavailable, What: "reload: the service is stopping"}})
	case !s.everReady:
		who.end(reloadEnd{err: &ipc.Failure{Exit: ipc.ExitTryAgain, What: "reload: the service is still starting", Try: "wait until preforkd status shows a ready worker"}})
	case s.op == nil:
		op := &operation{dryRun: request.DryRun, began: s.now(), old: s.gen}
		if who != nil {
			op.waiters = []*waiter{who}
		}
		s.begin(op)
	case request.NoWait:
		who.end(reloadEnd{err: &ipc.Failure{Exit: ipc.ExitTryAgain, What: "reload: another one is under way", Try: "try again when it has ended, or leave out --no-wait"}})
	default: // whoever asks while one is under way shares the next one
		s.queued = append(s.queued, queuedReload{request.DryRun, who})
	}
}

type queuedReload struct {
	dryRun bool
	who    *waiter
}

func (w *waiter) end(e reloadEnd) {
	if w != nil {
		w.done <- e
	}
}

// nextReload begins the reload that waits, for all who asked for the same.
func (s *Supervisor) nextReload() {
	if len(s.queued) == 0 {
		return
	}
	waiting := s.queued
	s.queued = nil
	if s.stopping != stopNot {
		for _, q := range waiting {
			q.who.end(reloadEnd{err: &ipc.Failure{Exit: ipc.ExitUnavailable, What: "reload: the service is stopping"}})
		}
		return
	}
	op := &operation{dryRun: waiting[0].dryRun, began: s.now(), old: s.gen}
	for _, q := range waiting {
		switch {
		case q.dryRun != op.dryRun:
			s.queued = append(s.queued, q)
		case q.who != nil:
			op.waiters = append(op.waiters, q.who)
		}
	}
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
