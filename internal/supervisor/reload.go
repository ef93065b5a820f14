package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// preparedEvent: the next generation has been made, or could not be.
type preparedEvent struct {
	op   *operation
	next *generation
	diff []string
	err  error
}

// begin reads the configuration, or takes an earlier one, and makes the next generation,
// beside the loop: models may be large.
func (s *Supervisor) begin(op *operation) {
	s.op = op
	prepare := s.read
	if op.back || op.takeover {
		s.log.Info(op.purpose.String()+" begins", "to", op.target.gen.number)
		prepare = func(old *generation, number uint64) (*generation, []string, error) {
			return s.again(op.target, old, number)
		}
	} else {
		s.log.Info("reload begins", "dry_run", op.dryRun)
	}
	number := s.shared.board.Generation().Add(1)
	go func() { // ends with its event
		next, diff, err := prepare(op.old, number)
		s.send(preparedEvent{op, next, diff, err})
	}()
}

func (s *Supervisor) read(old *generation, number uint64) (*generation, []string, error) {
	if s.opts.Reread == nil {
		return nil, nil, errors.New("reload: this service cannot read its configuration again")
	}
	loaded, err := s.opts.Reread()
	if err != nil {
		return nil, nil, err
	}
	for _, w := range loaded.Warnings {
		s.log.Warn("configuration", "warning", w)
	}
	next, err := s.newGeneration(number, &loaded.Config, old)
	if err != nil {
		return nil, nil, err
	}
	return next, differences(s.cfg, old, next), nil
}

// differences says what a reload changes in a service that was started with the
// settings in started. Pools may have the same models and programs: each line once.
func differences(started *config.Config, old, next *generation) []string {
	lines := append(config.Differences(*started, *old.cfg, *next.cfg), doorDifferences(&old.door, &next.door)...)
	for _, p := range next.pools {
		before := old.pool(p.name)
		if before == nil {
			continue
		}
		for _, line := range append(modelDifferences(before.models, p.models), before.programs.differ(&p.programs)...) {
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// onPrepared starts the canary, or ends a reload whose generation could not be made.
func (s *Supervisor) onPrepared(e preparedEvent) {
	op := e.op
	if s.op != op { // the service has stopped meanwhile
		if e.next != nil {
			e.next.release(op.old)
		}
		return
	}
	if e.err != nil {
		s.conclude(rollout.RolledBack, "", e.err)
		return
	}
	op.next, op.differences = e.next, e.diff
	for _, d := range e.diff {
		s.log.Info("reload changes", "what", d)
	}
	op.pairs = pairsOf(op.old, op.next)
	var plans []rollout.Plan
	for _, p := range op.pairs {
		plans = append(plans, op.plan(p))
	}
	var actions []rollout.Action
	op.rollout, actions = rollout.BeginAll(plans)
	op.busy = true
	s.carryOut(op, actions)
	for _, sl := range op.old.slots() { // those that the rollout believes to be on their way
		if sl.worker == nil && !op.succeeds {
			s.startLater(sl)
		}
	}
	op.busy = false
	s.feed()
}

// plan returns what op shall do with one pool.
func (op *operation) plan(p pair) rollout.Plan {
	plan := rollout.Plan{Bake: op.next.cfg.Reload.Bake, Trial: op.next.cfg.Reload.Trial, DryRun: op.dryRun}
	if p.next != nil {
		plan.New, plan.Surge = len(p.next.slots), p.next.surge
		if p.next.isHelper() { // nobody asks it before the workers of its generation do
			plan.Trial = 0
		}
	}
	if p.old != nil {
		plan.Floor = len(p.old.slots)
		for _, sl := range p.old.slots {
			sl.retryAt = 0 // from now on the rollout says what starts
			plan.Old = append(plan.Old, op.succeeds || sl.worker != nil && sl.worker.state == slot.Ready)
		}
	}
	return plan
}

// progress tells those who wait.
func (s *Supervisor) progress(op *operation, a rollout.Action) {
	text := fmt.Sprintf("%s: %d of %d new workers ready", a.Phase, a.Ready, a.Of)
	if a.Phase == rollout.Undoing && a.Reason != "" {
		s.shared.board.Taker().Store(op.old.number)
		s.settleRounds()
		text = "undo: " + a.Reason
	}
	pool := op.poolName(a.Pool)
	if len(op.pairs) > 1 {
		text = "pool " + pool + ": " + text
	}
	s.say(text)
	s.log.Info("reload", "pool", pool, "phase", a.Phase.String(), "ready", a.Ready, "of", a.Of, "reason", a.Reason)
	s.emit(admin.Event{Kind: op.purpose.String(), Text: text, Pool: pool, Generation: op.next.number})
	p := admin.Progress{Time: time.Now(), Phase: a.Phase.String(), Text: text, Ready: a.Ready, Of: a.Of}
	op.report(p)
}

// report tells those who wait for op.
func (op *operation) report(p admin.Progress) {
	for _, w := range op.waiters {
		if w.progress != nil {
			w.progress(p)
		}
	}
}

// conclude ends the reload and begins the next one that waits.
func (s *Supervisor) conclude(outcome rollout.Outcome, reason string, err error) {
	op := s.op
	s.op = nil
	took := s.now() - op.began
	used := []*generation{s.gen, op.old, op.next}
	switch op.next {
	case nil:
	case s.gen: // committed
		op.old.retire(op.next)
		used = append(used, s.forget()...)
	default:
		op.next.release(op.old)
	}
	end := reloadEnd{result: admin.ReloadResult{
		Outcome: outcome.String(), Generation: s.gen.number, Took: admin.Duration(took), Differences: op.differences,
	}}
	switch {
	case err != nil:
		end.err, reason = err, err.Error()
	case outcome == rollout.RolledBack:
		end.err = &ipc.Failure{Exit: ipc.ExitRolledBack, What: op.failed() + ": " + reason, Try: withoutTry(reason, op.advice())}
	case outcome == rollout.Stopped:
		end.err = &ipc.Failure{Exit: ipc.ExitUnavailable, What: op.purpose.String() + ": the service was stopped"}
	case outcome == rollout.Rehearsed:
		end.result.Message = "the next generation passed its self-test; nothing was changed"
	default:
		end.result.Message = fmt.Sprintf("generation %d serves", s.gen.number)
	}
	if op.succeeds && !s.inCharge && s.fatal == nil {
		s.fatal = end.err
	}
	s.reloaded(op, outcome, reason)
	s.lastReload = &admin.Reload{RollbackTo: op.number(), Time: time.Now(), Outcome: outcome.String(), Reason: reason, Took: admin.Duration(took)}
	if end.err != nil {
		s.log.Error(op.purpose.String()+" failed", "outcome", outcome.String(), "reason", reason, "took", took.Round(time.Millisecond))
	} else {
		s.log.Info(op.purpose.String()+" ended", "outcome", outcome.String(), "generation", s.gen.number, "took", took.Round(time.Millisecond))
	}
	s.emit(admin.Event{Kind: op.purpose.String(), Text: outcome.String() + suffix(reason), Generation: s.gen.number})
	for _, w := range op.waiters {
		w.end(end)
	}
	if s.stopping == stopNot && s.fatal == nil {
		s.freeModels()
		s.sweep(used...)
		s.resume()
	}
	s.next()
}

func suffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// resume makes the slots of the generation in charge the loop's own again.
func (s *Supervisor) resume() {
	for _, p := range s.gen.pools {
		s.resumePool(p)
	}
}

func (s *Supervisor) resumePool(p *pool) {
	for _, sl := range p.slots {
		if sl.worker == nil && sl.retryAt == 0 {
			sl.retryAt = s.now() + max(sl.wait, 1)
		}
	}
}
