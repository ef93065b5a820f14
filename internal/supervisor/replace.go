package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/control"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// testedEvent: the canary has answered its self-test.
type testedEvent struct {
	op  *operation
	err error
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
		sl := op.slotOf(a.Worker)
		sl.startHeld = a.Held
		s.startLater(sl)
	case rollout.SelfTest:
		s.selfTest(op)
	case rollout.Accept:
		s.shared.board.Taker().Store(op.next.number)
		op.before = s.tallies(op)
		s.askWorker(op.canary, ipc.ControlAccept, nil)
	case rollout.Share:
		for _, sl := range op.old.pool.slots {
			if sl.worker != nil && sl.worker.state == slot.Ready {
				s.askWorker(sl.worker, ipc.ControlShare, ipc.Share{Of: a.Of})
			}
		}
	case rollout.Count:
		now := s.tallies(op)
		s.feed(rollout.Event{Kind: rollout.OnCounted, Canary: since(op.before[0], now[0]), Others: since(op.before[1], now[1])})
	case rollout.Commit:
		s.commit(op)
	case rollout.Drain, rollout.Remove:
		if !s.takeAway(op.slotOf(a.Worker), a.Do) {
			s.feed(rollout.Event{Kind: rollout.OnEnded, Worker: a.Worker, Why: "not started"})
		}
	case rollout.SetClock:
		op.deadline = 0
		if a.Clock > 0 {
			op.deadline = s.now() + a.Clock
		}
	case rollout.Report:
		s.progress(op, a)
	case rollout.Finish:
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
	s.gen = op.next
	for i, sl := range op.next.pool.slots[:min(len(op.next.pool.slots), len(op.old.pool.slots))] {
		sl.inherit(op.old.pool.slots[i])
	}
	s.level.Set(levelOf(op.next.cfg.Log))
	s.shared.board.Committed().Store(op.next.number)
	s.shared.board.Taker().Store(op.next.number)
	s.log.Info("reload committed", "generation", op.next.number, "took", (s.now() - op.began).Round(time.Millisecond))
	s.emit(admin.Event{Kind: "commit", Text: fmt.Sprintf("generation %d serves", op.next.number), Generation: op.next.number})
}

// selfTest asks the canary, and answers for it when it does not in time.
func (s *Supervisor) selfTest(op *operation) {
	w := op.canary
	if w == nil {
		s.feed(rollout.Event{Kind: rollout.OnFailed, Why: "the canary has ended"})
		return
	}
	limit := op.next.cfg.Timeouts.Request
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
		s.send(testedEvent{op, err})
	}()
}

func (s *Supervisor) onTested(e testedEvent) {
	if s.op != e.op {
		return
	}
	if e.err != nil {
		s.feed(rollout.Event{Kind: rollout.OnFailed, Why: e.err.Error()})
		return
	}
	s.feed(rollout.Event{Kind: rollout.OnPassed})
}

// askWorker asks w without waiting for the answer: one that cannot answer is noticed
// by its clocks.
func (s *Supervisor) askWorker(w *worker, kind string, body any) {
	if w == nil {
		return
	}
	limit := w.slot.pool.clocks.heartbeat
	log, slotIndex, pid := s.log, w.slot.index, w.proc.PID
	go func() { // ends with the answer, the worker or the service
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		if err := w.channel.conn.Call(ctx, kind, body, nil); err != nil && ctx.Err() == nil {
			log.Warn("worker did not do as asked", "slot", slotIndex, "pid", pid, "what", kind, "err", err)
		}
	}()
}

// tallies counts the answers of the canary and of all others so far: over every row, as
// a row keeps the counts of those that held it before.
func (s *Supervisor) tallies(op *operation) (t [2]rollout.Tally) {
	for _, row := range s.shared.board.Rows() {
		i := 1
		if op.canary != nil && row == op.canary.row {
			i = 0
		}
		counts := row.Counts()
		for class, n := range counts.Responses {
			t[i].Answers += n
			if class == 4 {
				t[i].Errors += n
			}
		}
	}
	return t
}

func since(before, now rollout.Tally) rollout.Tally {
	return rollout.Tally{Answers: now.Answers - min(before.Answers, now.Answers), Errors: now.Errors - min(before.Errors, now.Errors)}
}
