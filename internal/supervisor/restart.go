package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/guard"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// restarting is the replacement of workers by others of the same generation, one after
// the other: asked for, or under way.
type restarting struct {
	request admin.RestartRequest
	reason  string          // as recycleReasons has it
	done    chan restartEnd // with room for one; nil: nobody waits

	pool     *pool
	slots    []int // still to be done, the one under way first
	replaced []int
	began    time.Duration

	old, next *poolSlot // of the one under way: both have its index
	placed    bool      // next is the pool's
	by        *worker   // that has the place since
	change    *rollout.Swap
	events    []rollout.Event // that arose while actions were carried out
	busy      bool
	short     bool // it is being taken back for want of memory
}

type restartEnd struct {
	result admin.RestartResult
	err    error
}

func (rs *restarting) end(e restartEnd) {
	if rs != nil && rs.done != nil {
		rs.done <- e
	}
}

// has tells whether rs decides about sl. The new worker is the supervisor's own as soon as
// it has the place.
func (rs *restarting) has(sl *poolSlot) bool {
	return rs != nil && rs.change != nil && (sl == rs.old || sl == rs.next && !rs.placed)
}

// Restart replaces workers and waits for the end.
func (v service) Restart(ctx context.Context, r admin.RestartRequest) (admin.RestartResult, error) {
	rs := &restarting{request: r, reason: recycleAsked, done: make(chan restartEnd, 1)}
	if err := v.s.ask(ctx, func() { v.s.restart(rs) }); err != nil {
		return admin.RestartResult{}, err
	}
	select {
	case end := <-rs.done:
		return end.result, end.err
	case <-ctx.Done(): // it goes on; nobody hears of it
		return admin.RestartResult{}, ctx.Err()
	case <-v.s.ended:
		return admin.RestartResult{}, errEnded()
	}
}

// restart begins rs, or has it wait.
func (s *Supervisor) restart(rs *restarting) {
	if err := s.mayOperate("restart", rs.request.NoWait); err != nil {
		rs.end(restartEnd{err: err})
		return
	}
	s.queued = append(s.queued, queued{restart: rs})
	s.next()
}

func (s *Supervisor) beginRestart(rs *restarting) {
	if err := s.planRestart(rs); err != nil {
		s.log.Warn("workers not restarted", "err", err)
		rs.end(restartEnd{err: err})
		return
	}
	s.restarts, rs.began = rs, s.now()
	s.replaceNext(rs)
}

// planRestart finds out which workers rs is about, or why it cannot be.
func (s *Supervisor) planRestart(rs *restarting) (err error) {
	if rs.pool, err = s.gen.poolNamed(rs.request.Pool); err != nil {
		return err
	}
	if err := s.roomToGrow("restart", guard.Critical, "; or scale down, which starts nothing"); err != nil {
		return err
	}
	n := len(rs.pool.slots)
	switch {
	case rs.request.All:
		for i := range n {
			rs.slots = append(rs.slots, i)
		}
	case rs.request.Slot >= n:
		return &ipc.Failure{
			Exit: ipc.ExitUsage, What: fmt.Sprintf("restart: pool %s has no slot %d", rs.pool.name, rs.request.Slot),
			Try: fmt.Sprintf("it has %s, from slot 0 on", workers(n)),
		}
	default:
		rs.slots = []int{rs.request.Slot}
	}
	return nil
}

// replaceNext begins with the next worker, if there is one.
func (s *Supervisor) replaceNext(rs *restarting) {
	if len(rs.slots) == 0 {
		s.endRestart(rs, nil)
		return
	}
	sl := rs.pool.slots[rs.slots[0]]
	rs.old, rs.next, rs.placed = sl, &poolSlot{pool: rs.pool, index: sl.index}, false
	there := sl.worker != nil
	sl.retryAt = 0 // the next one to start is the new one
	keys := []any{"pool", rs.pool.name, "slot", sl.index, "reason", rs.reason}
	if there {
		keys = append(keys, "pid", sl.worker.proc.PID, "requests", sl.worker.requests(), "pss", sl.worker.memory())
	}
	s.log.Info("replacing a worker", keys...)
	s.emitSlot(sl, "recycle", "begins: "+rs.reason)
	change, actions := rollout.Replace(sl.index, there, there && sl.worker.state == slot.Ready)
	rs.change = change
	s.restartDo(rs, actions)
}

// feedRestart hands the change what has happened, in order, and carries out what follows.
func (s *Supervisor) feedRestart(e rollout.Event) {
	rs := s.restarts
	if rs == nil || rs.change == nil {
		return
	}
	rs.events = append(rs.events, e)
	if !rs.busy {
		s.restartDo(rs, nil)
	}
}

// restartDo carries out actions, and what the events that they raise lead to.
func (s *Supervisor) restartDo(rs *restarting, actions []rollout.Action) {
	change := rs.change
	rs.busy = true
	for {
		for _, a := range actions {
			if a.Do == rollout.Finish {
				rs.busy, rs.events, rs.change = false, nil, nil
				s.replaced(rs, a)
				return
			}
			s.restartStep(rs, a)
		}
		if len(rs.events) == 0 {
			break
		}
		e := rs.events[0]
		rs.events = rs.events[1:]
		actions = change.Handle(e)
	}
	rs.busy = false
}

func (s *Supervisor) restartStep(rs *restarting, a rollout.Action) {
	s.log.Debug("restart", "action", a.String())
	switch a.Do {
	case rollout.Start:
		s.start(rs.next)
	case rollout.Commit:
		rs.placed, rs.by = true, rs.next.worker
		rs.next.inherit(rs.old)
		rs.next.restarts++
		rs.next.history = rs.old.history
		rs.pool.slots[rs.old.index] = rs.next
	case rollout.Drain, rollout.Remove:
		sl := rs.old
		if a.Worker.Gen == rollout.New {
			sl = rs.next
		}
		if !s.takeAway(sl, a.Do) {
			rs.events = append(rs.events, rollout.Event{Kind: rollout.OnEnded, Worker: a.Worker})
		}
	}
}

// replaced ends the replacement of one worker, and goes on with the next.
func (s *Supervisor) replaced(rs *restarting, a rollout.Action) {
	sl := rs.old
	rs.slots = rs.slots[1:]
	switch {
	case a.Outcome == rollout.Committed:
		rs.next.recycled = rs.reason
		if rs.next.worker == rs.by { // else how that one ended is what counts
			rs.next.lastExit, rs.next.lastReason = sl.lastExit, sl.lastReason
		}
		rs.replaced = append(rs.replaced, sl.index)
		s.shared.board.Tally(tallyRecycles + rs.reason).Add(1)
		s.log.Info("worker replaced", "pool", rs.pool.name, "slot", sl.index, "reason", rs.reason)
		s.emitSlot(rs.next, "recycle", "done: "+rs.reason)
		if s.stopping == stopNot {
			s.replaceNext(rs)
			return
		}
		s.endRestart(rs, stoppingFailure("restart"))
	case a.Outcome == rollout.Stopped || s.stopping != stopNot:
		s.endRestart(rs, stoppingFailure("restart"))
	default:
		has := "keeps its worker"
		if sl.worker == nil {
			has = "has no worker"
			sl.retryAt = s.now() + max(sl.wait, 1)
		}
		s.log.Error("worker not replaced", "pool", rs.pool.name, "slot", sl.index, "reason", rs.reason, "err", a.Reason)
		s.emitSlot(sl, "recycle", "failed: "+a.Reason)
		s.endRestart(rs, &ipc.Failure{
			Exit: ipc.ExitRolledBack, What: fmt.Sprintf("slot %d of pool %s %s: %s", sl.index, rs.pool.name, has, a.Reason),
			Try: withoutTry(a.Reason, "correct it and restart again; the workers that ran serve"),
		})
	}
}

func (s *Supervisor) endRestart(rs *restarting, err error) {
	s.restarts = nil
	took := s.now() - rs.began
	text := "restarted " + workers(len(rs.replaced)) + " of pool " + rs.pool.name
	if rs.request.All || len(rs.replaced) != 1 {
		text = fmt.Sprintf("restarted %d of %s of pool %s", len(rs.replaced), workers(len(rs.replaced)+len(rs.slots)), rs.pool.name)
	}
	rs.pool.recycle.settle(s.now(), err == nil)
	rs.end(restartEnd{err: err, result: admin.RestartResult{
		Pool: rs.pool.name, Replaced: slices.Clip(append([]int{}, rs.replaced...)), Took: admin.Duration(took), Message: text,
	}})
	s.next()
}

// emitSlot records an event of a slot, and of its process if it has one.
func (s *Supervisor) emitSlot(sl *poolSlot, kind, text string) {
	if sl.worker != nil {
		s.emitWorker(sl.worker, kind, text)
		return
	}
	s.emitWorker(&worker{slot: sl}, kind, text)
}
