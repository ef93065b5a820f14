package supervisor

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/supervisor/process"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// start starts the next worker of sl.
func (s *Supervisor) start(sl *poolSlot) {
	w := &worker{slot: sl, state: slot.Starting, started: s.now()}
	w.deadline = w.started + sl.pool.clocks.boot
	proc, err := s.launch(w)
	if err != nil { // no memory, no process number: as if it had crashed at once
		s.log.Error("worker not started", "pool", sl.pool.name, "slot", sl.index, "err", err)
		w.tail.add(err.Error())
		w.reason, w.startErr = slot.Crash, err
		sl.lastReason = w.reason
		s.ends(w, slot.Crash)
		return
	}
	w.proc = proc
	sl.worker = w
	if s.op != nil && sl.startHeld {
		s.op.canary = w
	}
	w.held = sl.startHeld && !sl.pool.other
	sl.startHeld = false
	if sl.begun {
		sl.restarts++
		s.shared.board.Tally(tallyRestarts + sl.lastReason.Cause()).Add(1)
	}
	sl.begun = true
	w.row.SetPID(proc.PID)
	s.byPID[proc.PID] = w
	s.oom.started(w)
	s.log.Info("worker started", "pool", sl.pool.name, "slot", sl.index, "pid", proc.PID)
	if sl.pool.other {
		w.leaveSocket()
		s.watch(w)
	}
	s.awaitEnd(w)
}

// awaitEnd has the loop hear when the process of w has ended.
func (s *Supervisor) awaitEnd(w *worker) {
	go func() { // ends when the process has
		<-w.proc.Done()
		if err := s.server.Flush(); err != nil { // why it ended may still be on its way
			s.log.Debug("last messages of a worker not awaited", "pid", w.proc.PID, "err", err)
		}
		s.send(endedEvent{w})
	}()
}

// launch gives w what it needs beside the process, and starts that.
func (s *Supervisor) launch(w *worker) (*process.Process, error) {
	if err := s.join(w); err != nil {
		return nil, err
	}
	programs := w.slot.pool.programs
	spec := process.Spec{
		Path: programs.path, Args: programs.args, Executable: programs.worker, ByName: !programs.own,
		Limits: s.limits(w.slot.pool), Identity: w.slot.pool.identity,
		Line: func(pid int, line string) { s.line(w, pid, line) },
	}
	if w.slot.pool.other {
		if err := s.prepareOther(w, &spec); err != nil {
			s.part(w)
			return nil, err
		}
	} else {
		if err := s.openHelpersFor(w); err != nil {
			s.part(w)
			return nil, err
		}
		spec.Env, spec.Descriptors = s.workerEnv(w), s.descriptors(w)
		var err error
		if spec.Output, err = s.output(w.row); err != nil {
			s.log.Warn("output of a worker does not survive this process", "slot", w.slot.index, "err", err)
		}
	}
	spec.Env = spec.Identity.Environment(spec.Env)
	proc, err := process.Start(spec)
	if w.channel != nil {
		activation.Close(w.channel.worker)
	}
	if err != nil {
		s.part(w)
	}
	return proc, err
}

// apply feeds e to w and acts on what follows.
func (s *Supervisor) apply(w *worker, e slot.Event) {
	before := w.state
	state, action := slot.Next(w.state, e)
	w.state = state
	if state != before {
		s.wind(w)
		if w.row != nil {
			w.row.SetState(uint64(state))
		}
	}
	switch action {
	case slot.Drain:
		w.proc.Signal(w.slot.pool.leaveSignal())
	case slot.Stop:
		w.proc.Signal(w.stopSignal())
	case slot.Kill:
		s.log.Warn("worker killed", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID, "state", before, "reason", w.reason)
		w.killed = true
		w.proc.Signal(syscall.SIGKILL)
	case slot.Settle:
		s.settle(w)
	}
}

// stopSignal makes w leave at once: ABRT one of ours that hangs, whose stacks then land in
// the log.
func (w *worker) stopSignal() syscall.Signal {
	if w.reason == slot.Hung && !w.slot.pool.other {
		return syscall.SIGABRT
	}
	return w.slot.pool.leaveSignal()
}

// wind sets the clock of the state that w has entered.
func (s *Supervisor) wind(w *worker) {
	switch w.state {
	case slot.Draining:
		w.deadline = s.now() + w.slot.pool.clocks.drain + drainGrace
	case slot.Killing:
		w.deadline = s.now() + killClock
	case slot.Starting, slot.Loading: // the boot clock runs from the start of the process
	default: // the heartbeat clock starts with the first beat
		w.deadline = 0
	}
}

// timeout reports which clock of w has run out, and acts.
func (s *Supervisor) timeout(w *worker) {
	w.deadline = 0
	switch w.state {
	case slot.Starting, slot.Loading:
		w.reason = slot.Boot
		s.log.Error("worker not ready in time", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID,
			"clock", w.slot.pool.key("timeouts.boot"), "limit", w.slot.pool.clocks.boot, "status", w.status)
		s.tellLost(w, fmt.Sprintf("not ready within timeouts.boot (%v)%s", w.slot.pool.clocks.boot, w.lastStatus()))
	case slot.Ready:
		w.reason, w.suspect = slot.Hung, s.suspect(w)
		s.log.Error("worker stopped its heartbeat", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID,
			"clock", "timeouts.heartbeat", "limit", w.slot.pool.clocks.heartbeat)
		s.tellLost(w, fmt.Sprintf("no heartbeat within timeouts.heartbeat (%v)", w.slot.pool.clocks.heartbeat))
	case slot.Draining:
		w.reason = slot.Overdue
		s.log.Error("worker not drained in time", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID,
			"clock", "timeouts.drain", "limit", w.slot.pool.clocks.drain)
	}
	s.apply(w, slot.OnTimeout)
	if w.state == slot.Killing && w.deadline == 0 { // killed: nothing can ignore that, but look again
		w.deadline = s.now() + killClock
	}
}

// lose ends w, which can no longer be relied on.
func (s *Supervisor) lose(w *worker, reason slot.Reason) {
	w.reason, w.suspect = reason, s.suspect(w)
	s.tellLost(w, reason.String())
	s.apply(w, slot.OnQuit)
}

func (s *Supervisor) tellLost(w *worker, why string) { s.tell(w, rollout.OnLost, why) }

// tell feeds what has happened to w to the operation that decides about its slot, and
// tells whether there is one.
func (s *Supervisor) tell(w *worker, kind rollout.Kind, why string) bool {
	s.changeHears(w, kind, why)
	switch {
	case s.change.tries(w.slot):
		return true
	case s.op.decides(w.slot.pool) && w.slot.pool.has(w.slot): // else another worker has that place by now
		s.feed(s.op.event(kind, w, why))
		return true
	case s.scale.has(w.slot):
		s.feedScale(rollout.Event{Kind: kind, Worker: rollout.Worker{Slot: w.slot.index}, Why: why})
		return true
	case s.restarts.has(w.slot):
		e := rollout.Event{Kind: kind, Worker: rollout.Worker{Gen: rollout.Old, Slot: w.slot.index}, Why: why}
		if w.slot == s.restarts.next {
			e.Worker.Gen = rollout.New
		}
		s.feedRestart(e)
		return true
	}
	return false
}

// settle takes the ended process of w out of its slot.
func (s *Supervisor) settle(w *worker) {
	<-w.proc.Done()
	delete(s.byPID, w.proc.PID)
	w.slot.worker = nil
	w.exit = w.proc.Exit()
	w.exit.OOM = s.oom.ended(w)
	if w.state == slot.Failed {
		w.reason = slot.Crash
		if w.exit.OOM {
			w.reason = slot.Memory
		}
	}
	w.slot.lastExit, w.slot.lastReason, w.slot.recycled = w.exit.String(), w.reason, ""
	if w.relieves && !w.reason.Charged() {
		w.slot.recycled = recyclePressure
		s.shared.board.Tally(tallyRecycles + recyclePressure).Add(1)
		s.emitWorker(w, "recycle", "done: "+recyclePressure)
	}
	c, quarantine := s.blame(w)
	s.lostTask(w)
	s.part(w)
	s.letHelpersLeave()
	if w.reason.Charged() {
		keys := []any{
			"pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID,
			"reason", w.reason, "exit", w.exit.String(), "served", w.served(s.now()).Round(time.Millisecond),
		}
		s.log.Error("worker died", append(keys, c.keys()...)...)
		s.emit(c.in(s.workerEvent(w, "crash", w.reason.String()+": "+w.exit.String())))
	} else {
		s.log.Info("worker left", append([]any{"pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID, "exit", w.exit.String()}, c.keys()...)...)
		s.emit(c.in(s.workerEvent(w, "left", w.exit.String())))
	}
	if quarantine != nil {
		s.tellQuarantine(w, c, *quarantine)
	}
	s.ends(w, w.reason)
}

func (w *worker) served(now time.Duration) time.Duration {
	if w.ready == 0 {
		return 0
	}
	return now - w.ready
}

// ends chooses what the slot of w does after w.
func (s *Supervisor) ends(w *worker, reason slot.Reason) {
	sl := w.slot
	s.last = w.tail.lines
	if s.op != nil && s.op.canary == w {
		s.op.canary = nil
	}
	if s.stopping != stopNot {
		s.shorten()
		return
	}
	sl.wait = 0
	if reason.Charged() {
		s.charge(w)
	}
	switch {
	case s.tell(w, rollout.OnEnded, w.why()): // an operation says what starts
	case !s.proven[sl.pool.name] && reason.Charged() && (!sl.pool.background || sl.pool.name == config.MainPool):
		sl.held = true
		s.bootFailed(w)
	default:
		sl.retryAt = s.now() + max(sl.wait, 1)
	}
}

// charge counts a crash against the slot of w.
func (s *Supervisor) charge(w *worker) {
	sl := w.slot
	wait, failed := sl.history.Crashed(s.now(), w.served(s.now()), jitter(), sl.pool.policy)
	if failed && !sl.failed && s.everReady {
		s.log.Error("slot failed", "pool", sl.pool.name, "slot", sl.index, "crashes", sl.history.Crashes(s.now(), sl.pool.policy),
			"window", sl.pool.policy.CrashWindow, "next", wait.Round(time.Second))
	}
	sl.failed, sl.wait = failed, wait
}

// why says why w has ended, as operators read it: in its own words, if it sent any.
func (w *worker) why() string {
	switch {
	case w.failure != nil:
		return w.failure.Error()
	case w.startErr != nil:
		return w.startErr.Error()
	case w.reason.Charged() && w.reason != slot.Crash && w.reason != slot.Memory: // its end came of that
		return w.reason.String() + ", " + w.exit.String() + quote(w.tail.lines)
	}
	return "worker ended: " + w.exit.String() + w.lastStatus() + quote(w.tail.lines)
}

// onMessage carries out what a worker says of itself.
func (s *Supervisor) onMessage(m notify.Message) {
	w := s.byPID[m.PID]
	if w == nil && s.onBrokerMessage(m) {
		return
	}
	if w == nil {
		s.shared.board.Tally(tallyStrangers).Add(1)
		s.log.Debug("notify message of a stranger dropped", "pid", m.PID)
		return
	}
	s.apply(w, slot.OnHello)
	if status, ok := m.Get("STATUS"); ok {
		w.status = status
	}
	if text, ok := m.Get("ERRNO"); ok {
		if n, err := strconv.Atoi(text); err == nil && n > 0 {
			w.errno = syscall.Errno(n)
		}
	}
	if text, ok := m.Get(ipc.KeyFailure); ok {
		f, err := ipc.DecodeFailure(text)
		if err != nil {
			s.log.Warn("worker sent a failure that cannot be read", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", m.PID, "err", err)
		}
		w.failure = f
	}
	if usec, ok := m.Get("EXTEND_TIMEOUT_USEC"); ok {
		s.extend(w, usec)
	}
	if v, _ := m.Get("READY"); v == "1" && w.slot.pool.notifies() {
		s.becomesReady(w)
	}
	if _, ok := m.Get("WATCHDOG"); ok && w.state == slot.Ready && w.slot.pool.beats() {
		w.deadline = s.now() + w.slot.pool.clocks.heartbeat
	}
}

// becomesReady notes that w is.
func (s *Supervisor) becomesReady(w *worker) {
	if w.state != slot.Loading {
		return
	}
	w.ready = s.now()
	s.freshLimits(w)
	w.slot.failed = false
	s.apply(w, slot.OnReady)
	if w.slot.pool.other && w.slot.pool.beats() { // it said that it would
		w.deadline = s.now() + w.slot.pool.clocks.heartbeat
	}
	s.log.Info("worker ready", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID, "took", (w.ready - w.started).Round(time.Millisecond))
	s.emitWorker(w, "ready", "after "+(w.ready-w.started).Round(time.Millisecond).String())
	s.firstReady(w.slot.pool)
	s.tell(w, rollout.OnReady, "")
	s.returnTasks()
}

// extend gives w more time in a state that may take long (EXTEND_TIMEOUT_USEC in
// sd_notify(3)): until now and the time asked for, if that is later.
func (s *Supervisor) extend(w *worker, usec string) {
	n, err := strconv.ParseUint(usec, 10, 63)
	if err != nil || w.deadline == 0 || (w.state != slot.Loading && w.state != slot.Draining) {
		return
	}
	w.deadline = max(w.deadline, s.now()+time.Duration(min(n, uint64(time.Hour/time.Microsecond)))*time.Microsecond)
}

// firstReady releases the slots of a pool whose first worker died before any was ready: it
// was not the model or the configuration that killed it.
func (s *Supervisor) firstReady(p *pool) {
	if !s.everReady {
		s.everReady = true
		s.sweep(s.gen)
	}
	s.proven[p.name] = true
	for _, sl := range p.slots {
		if sl.held {
			sl.held, sl.retryAt = false, s.now()+max(sl.wait, 1)
		}
	}
}

// line relays one line of a worker's output. It runs in the output's goroutine.
func (s *Supervisor) line(w *worker, pid int, line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	w.tail.add(plain(line))
	s.relay(w, pid, line)
}
