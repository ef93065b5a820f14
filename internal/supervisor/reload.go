package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/control"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
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

// preparedEvent: the next generation has been made, or could not be.
type preparedEvent struct {
	op   *operation
	next *generation
	diff []string
	err  error
}

// testedEvent: the canary has answered its self-test.
type testedEvent struct {
	op  *operation
	err error
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

// begin reads the configuration and makes the next generation, beside the loop: models
// may be large.
func (s *Supervisor) begin(op *operation) {
	s.op = op
	s.log.Info("reload begins", "dry_run", op.dryRun)
	number := s.shared.board.Generation().Add(1)
	go func() { // ends with its event
		next, diff, err := s.read(op.old, number)
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
	next, err := s.newGeneration(number, &loaded.Config, old.sockets)
	if err != nil {
		return nil, nil, err
	}
	return next, differences(s.cfg, old, next), nil
}

// differences says what a reload changes in a service that was started with the
// settings in started.
func differences(started *config.Config, old, next *generation) []string {
	lines := config.Differences(*started, *old.cfg, *next.cfg)
	was := map[string]ipc.ModelFile{}
	for _, m := range old.models {
		was[m.Name] = m
	}
	for _, m := range next.models {
		before, ok := was[m.Name]
		delete(was, m.Name)
		switch {
		case !ok:
			lines = append(lines, fmt.Sprintf("model %s: new, version %s", m.Name, m.Version))
		case before.Version != m.Version:
			lines = append(lines, fmt.Sprintf("model %s: version %s -> %s", m.Name, before.Version, m.Version))
		case before.Digest != m.Digest:
			lines = append(lines, fmt.Sprintf("model %s: version %s has other content", m.Name, m.Version))
		}
	}
	for _, m := range old.models {
		if _, gone := was[m.Name]; gone {
			lines = append(lines, fmt.Sprintf("model %s: removed", m.Name))
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
	plan := rollout.Plan{
		New: len(op.next.pool.slots), Surge: op.next.surge, Floor: len(op.old.pool.slots),
		Bake: op.next.cfg.Reload.Bake, Trial: op.next.cfg.Reload.Trial, DryRun: op.dryRun,
	}
	for _, sl := range op.old.pool.slots {
		sl.retryAt = 0 // from now on the rollout says what starts
		plan.Old = append(plan.Old, sl.worker != nil && sl.worker.state == slot.Ready)
	}
	var actions []rollout.Action
	op.rollout, actions = rollout.Begin(plan)
	op.busy = true
	s.carryOut(op, actions)
	for i, sl := range op.old.pool.slots { // those that the rollout believes to be on their way
		if sl.worker == nil {
			s.startLater(op.old.pool.slots[i])
		}
	}
	op.busy = false
	s.feed()
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
		s.takeAway(op, a)
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

func (s *Supervisor) takeAway(op *operation, a rollout.Action) {
	sl := op.slotOf(a.Worker)
	if sl.worker == nil { // it was only waiting to be started
		sl.retryAt = 0
		s.feed(rollout.Event{Kind: rollout.OnEnded, Worker: a.Worker, Why: "not started"})
		return
	}
	if a.Do == rollout.Drain {
		s.apply(sl.worker, slot.OnLeave)
		return
	}
	s.apply(sl.worker, slot.OnQuit)
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

// progress tells those who wait.
func (s *Supervisor) progress(op *operation, a rollout.Action) {
	text := fmt.Sprintf("%s: %d of %d new workers ready", a.Phase, a.Ready, a.Of)
	if a.Phase == rollout.Undoing && a.Reason != "" {
		s.shared.board.Taker().Store(op.old.number)
		text = "undo: " + a.Reason
	}
	s.log.Info("reload", "phase", a.Phase.String(), "ready", a.Ready, "of", a.Of, "reason", a.Reason)
	s.emit(admin.Event{Kind: "reload", Text: text, Generation: op.next.number})
	p := admin.Progress{Time: time.Now(), Phase: a.Phase.String(), Text: text, Ready: a.Ready, Of: a.Of}
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
	if op.next != nil {
		loser, winner := op.next, op.old
		if outcome == rollout.Committed || outcome == rollout.Stopped && s.gen == op.next {
			loser, winner = op.old, op.next
		}
		loser.release(winner)
	}
	end := reloadEnd{result: admin.ReloadResult{
		Outcome: outcome.String(), Generation: s.gen.number, Took: admin.Duration(took), Differences: op.differences,
	}}
	switch {
	case err != nil:
		end.err, reason = err, err.Error()
	case outcome == rollout.RolledBack:
		end.err = &ipc.Failure{Exit: ipc.ExitRolledBack, What: "reload rolled back: " + reason, Try: tryAgain(reason)}
	case outcome == rollout.Stopped:
		end.err = &ipc.Failure{Exit: ipc.ExitUnavailable, What: "reload: the service was stopped"}
	case outcome == rollout.Rehearsed:
		end.result.Message = "the next generation passed its self-test; nothing was changed"
	default:
		end.result.Message = fmt.Sprintf("generation %d serves", s.gen.number)
	}
	s.reloaded(op, outcome, reason)
	s.lastReload = &admin.Reload{Time: time.Now(), Outcome: outcome.String(), Reason: reason, Took: admin.Duration(took)}
	if end.err != nil {
		s.log.Error("reload failed", "outcome", outcome.String(), "reason", reason, "took", took.Round(time.Millisecond))
	} else {
		s.log.Info("reload ended", "outcome", outcome.String(), "generation", s.gen.number, "took", took.Round(time.Millisecond))
	}
	s.emit(admin.Event{Kind: "reload", Text: outcome.String() + suffix(reason), Generation: s.gen.number})
	for _, w := range op.waiters {
		w.end(end)
	}
	if s.stopping == stopNot {
		s.resume()
	}
	s.nextReload()
}

// tryAgain is what to do about a rolled-back reload: the canary's own words may say it.
func tryAgain(reason string) string {
	if strings.Contains(reason, "\n  try: ") {
		return ""
	}
	return "correct it and reload again; the old generation serves"
}

func suffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// resume makes the slots of the generation in charge the loop's own again.
func (s *Supervisor) resume() {
	for _, sl := range s.gen.pool.slots {
		if sl.worker == nil && sl.retryAt == 0 {
			sl.retryAt = s.now() + max(sl.wait, 1)
		}
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
