package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/control"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// testedEvent: the canary has answered its self-test.
type testedEvent struct {
	op   *operation
	pool int
	err  error
}

// feed hands the rollout what has happened, in order, and carries out what follows.
func (s *Supervisor) feed(events ...rollout.Event) {
	op := s.op
	if op == nil || op.rollout == nil {
		return
	}
	op.events = append(op.events, events...)
	if op.busy {
		return
	}
	op.busy = true
	for len(op.events) > 0 && s.op == op {
		e := op.events[0]
		op.events = op.events[1:]
		s.carryOut(op, op.rollout.Handle(e))
	}
	op.busy = false
}

func (s *Supervisor) carryOut(op *operation, actions []rollout.Action) {
	for _, a := range actions {
		s.log.Debug("reload", "action", a.String())
		s.do(op, a)
	}
}

// do carries out one action.
func (s *Supervisor) do(op *operation, a rollout.Action) {
	switch a.Do {
	case rollout.Start:
		sl := op.slotOf(a)
		sl.startHeld = a.Held
		s.startLater(sl)
	case rollout.SelfTest:
		s.selfTest(op, a.Pool)
	case rollout.Accept:
		s.shared.board.Taker().Store(op.next.number)
		op.before = s.answers()
		if op.canary != nil {
			op.canary.held = false
		}
		s.askWorker(op.canary, ipc.ControlAccept, nil)
	case rollout.Share:
		if old := op.pairs[a.Pool].old; old != nil {
			round := s.nextRound()
			for _, sl := range old.slots {
				if sl.worker != nil && sl.worker.state == slot.Ready {
					s.askWorker(sl.worker, ipc.ControlShare, ipc.Share{Of: a.Of, Round: round})
				}
			}
		}
	case rollout.Count:
		canary, others := s.tallies(op)
		s.feed(rollout.Event{Kind: rollout.OnCounted, Pool: a.Pool, Canary: canary, Others: others})
	case rollout.Commit:
		s.commit(op)
	case rollout.Drain, rollout.Remove:
		if sl := op.slotOf(a); s.withGeneration(op, sl) && s.postpone(sl.worker, a.Do) {
			return
		}
		if !s.takeAway(op.slotOf(a), a.Do) {
			s.feed(rollout.Event{Kind: rollout.OnEnded, Pool: a.Pool, Worker: a.Worker, Why: "not started"})
		}
	case rollout.SetClock:
		op.deadline, op.clockOf = 0, a.Pool // no two pools have one at a time
		if a.Clock > 0 {
			op.deadline = s.now() + a.Clock
		}
	case rollout.Report:
		s.progress(op, a)
	case rollout.Release:
		if p := s.gen.pool(op.poolName(a.Pool)); p != nil && s.stopping == stopNot {
			s.resumePool(p)
		}
	case rollout.Finish:
		if a.Reason != "" && len(op.pairs) > 1 {
			a.Reason = "pool " + op.poolName(a.Pool) + ": " + a.Reason
		}
		s.conclude(a.Outcome, a.Reason, nil)
	}
}

// startLater starts the next worker of sl, at once or when its crashes allow.
func (s *Supervisor) startLater(sl *poolSlot) {
	if sl.wait > 0 {
		sl.retryAt = s.now() + sl.wait
		return
	}
	s.start(sl)
}

// takeAway makes the worker of sl leave, politely or at once. It returns false where
// there is none: one that was only waiting to be started is not.
func (s *Supervisor) takeAway(sl *poolSlot, how rollout.Do) bool {
	if sl.worker == nil {
		sl.retryAt = 0
		return false
	}
	if how == rollout.Drain {
		s.apply(sl.worker, slot.OnLeave)
	} else {
		s.apply(sl.worker, slot.OnQuit)
	}
	return true
}

// commit puts the next generation in charge.
func (s *Supervisor) commit(op *operation) {
	if op.succeeds && !s.succeed() {
		return
	}
	s.gen = op.next
	s.keep(op)
	for _, p := range op.pairs {
		if p.old == nil || p.next == nil {
			continue
		}
		for i, sl := range p.next.slots[:min(len(p.next.slots), len(p.old.slots))] {
			sl.inherit(p.old.slots[i])
		}
	}
	s.level.Set(levelOf(op.next.cfg.Log))
	s.shared.board.Committed().Store(op.next.number)
	s.shared.board.Taker().Store(op.next.number)
	s.log.Info(op.purpose.String()+" committed", "generation", op.next.number, "took", (s.now() - op.began).Round(time.Millisecond))
	if op.succeeds {
		s.succession()
	}
	s.emit(admin.Event{Kind: "commit", Text: fmt.Sprintf("generation %d serves", op.next.number), Generation: op.next.number})
}

// selfTest asks the canary, and answers for it when it does not in time.
func (s *Supervisor) selfTest(op *operation, pool int) {
	w := op.canary
	if w == nil {
		s.feed(rollout.Event{Kind: rollout.OnFailed, Pool: pool, Why: "the canary has ended"})
		return
	}
	if w.slot.pool.other {
		s.testOther(op, pool, w)
		return
	}
	limit := w.slot.pool.cfg.Timeouts.Request
	go func() { // ends with its event
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		err := w.channel.conn.Call(ctx, ipc.ControlSelfTest, nil, nil)
		switch {
		case errors.Is(err, control.ErrEnded) && w.gone(killClock):
			return // how it ended says more, and is an event of its own
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("no answer to the self-test within timeouts.request (%v)", limit)
		}
		s.send(testedEvent{op, pool, err})
	}()
}

func (s *Supervisor) onTested(e testedEvent) {
	if s.op != e.op {
		return
	}
	if e.err != nil {
		s.feed(rollout.Event{Kind: rollout.OnFailed, Pool: e.pool, Why: e.err.Error()})
		return
	}
	s.feed(rollout.Event{Kind: rollout.OnPassed, Pool: e.pool})
}

// askWorker asks w without waiting for the answer: one that cannot answer is noticed
// by its clocks.
func (s *Supervisor) askWorker(w *worker, kind string, body any) {
	if w == nil || w.channel == nil {
		return
	}
	limit := w.slot.pool.clocks.heartbeat
	go func() { // ends with the answer, the worker or the service
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		s.call(ctx, w, kind, body, nil)
	}()
}

// call asks w and waits for the answer; what goes wrong is logged. It runs beside the loop.
func (s *Supervisor) call(ctx context.Context, w *worker, kind string, body, reply any) {
	if err := w.channel.conn.Call(ctx, kind, body, reply); err != nil && ctx.Err() == nil {
		s.log.Warn("worker did not do as asked", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID, "what", kind, "err", err)
	}
}

// answers counts the answers so far, by row: a row keeps the counts of those that held it
// before.
func (s *Supervisor) answers() map[*scoreboard.Row]rollout.Tally {
	all := map[*scoreboard.Row]rollout.Tally{}
	for _, row := range s.shared.board.Rows() {
		var t rollout.Tally
		for class, n := range row.Counts().Responses {
			t.Answers += n
			if class == 4 {
				t.Errors += n
			}
		}
		all[row] = t
	}
	return all
}

// tallies returns the answers since the trial began, of the canary and of the other
// workers of its pool.
func (s *Supervisor) tallies(op *operation) (canary, others rollout.Tally) {
	if op.canary == nil {
		return canary, others
	}
	pool := op.canary.row.Pool()
	for row, now := range s.answers() {
		t := since(op.before[row], now)
		switch {
		case row == op.canary.row:
			canary = t
		case row.Pool() == pool:
			others.Answers += t.Answers
			others.Errors += t.Errors
		}
	}
	return canary, others
}

func since(before, now rollout.Tally) rollout.Tally {
	return rollout.Tally{Answers: now.Answers - min(before.Answers, now.Answers), Errors: now.Errors - min(before.Errors, now.Errors)}
}
