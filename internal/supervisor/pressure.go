package supervisor

import (
	"fmt"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/guard"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/sizing"
	"preforkd/internal/supervisor/slot"
)

// Memory is looked at once a second: what a leak takes in that time, and in the seconds until it
// counts as critical, is little beside the part of the limit that is left then.
const strainEvery = time.Second

// ownShare: where the machine is short of memory and the workers hold less than one part in so
// many of what is used, others are, and recycling workers would not help.
const ownShare = 4

// pressure watches how short memory is, and gives some back. Only the loop uses it.
type pressure struct {
	at     time.Duration // when to look again
	under  bool          // a look is under way
	watch  guard.Watch
	pace   guard.Pace
	found  machine.Strain
	said   string // what could not be read
	notice string // why nothing gives memory back; empty: nothing has to, or something does
}

// strainEvent is what a look has found.
type strainEvent struct {
	found machine.Strain
	err   error
}

// feel looks at memory beside the loop.
func (s *Supervisor) feel() {
	if s.pressure.under || !s.inCharge {
		return
	}
	s.pressure.under = true
	go func() { // ends with its event
		found, err := machine.ReadStrain()
		s.send(strainEvent{found, err})
	}()
}

// onStrain says when memory becomes short, and has something give some back while it is critical.
func (s *Supervisor) onStrain(e strainEvent) {
	p := &s.pressure
	p.under = false
	s.warnAnew(&p.said, "memory not fully known", e.err)
	p.found = e.found
	before := p.watch.State().Level
	changed := p.watch.Take(s.now(), guard.Sample{
		Limit: e.found.Limit, Used: e.found.Used, Mapped: e.found.Mapped,
		Stalled: e.found.Stalled, StallKnown: e.found.StallKnown, MajorFaults: e.found.MajorFaults,
	})
	state := p.watch.State()
	if changed {
		s.tellPressure(before, state)
	}
	if state.Level != guard.Critical {
		p.notice = ""
		return
	}
	if s.guards() && s.stopping == stopNot {
		s.relieve()
	}
}

// guards tells whether the service is to do something about memory that is short.
func (s *Supervisor) guards() bool { return s.gen.cfg.Memory.Guard == config.GuardAuto }

// tellPressure says that the level has changed.
func (s *Supervisor) tellPressure(before guard.Level, state guard.State) {
	text := fmt.Sprintf("memory is %s: %s", state.Level, s.strainText())
	keys := []any{
		"level", state.Level.String(), "before", before.String(), "limit", memoryText(s.pressure.found.Limit), "by", s.pressure.found.By,
		"used", sizing.Size(s.pressure.found.Used), "mapped", sizing.Size(s.pressure.found.Mapped), "workers", sizing.Size(uint64(s.shared.board.Memory().PSS)),
	}
	switch {
	case state.Level == guard.Critical:
		s.log.Error("memory is critical", append(keys, "try", "scale down, or raise the limit")...)
	case state.Level > before:
		s.log.Warn("memory is tight", keys...)
	default:
		s.log.Info("memory is no longer "+before.String(), keys...)
	}
	s.emit(admin.Event{Kind: "memory", Text: text, Generation: s.gen.number})
}

// strainText says how memory is, with the numbers.
func (s *Supervisor) strainText() string {
	return fmt.Sprintf("of %s by %s, %s", memoryText(s.pressure.found.Limit), s.pressure.found.By, s.pressure.watch.State())
}

// relieve has something give memory back: what is being added to what serves, else the largest
// worker that has grown.
func (s *Supervisor) relieve() {
	p := &s.pressure
	if s.stopSurge("memory ran short: " + s.strainText()) {
		p.notice = ""
		return
	}
	now := s.now()
	if s.busy() != "" || len(s.queued) > 0 || !s.everReady || s.relieving() || !p.pace.May(now) {
		return
	}
	w, why := s.victim()
	if w == nil {
		if p.notice == "" {
			s.log.Error("nothing gives memory back", "why", why, "try", "scale down, or raise the limit")
			s.emit(admin.Event{Kind: "memory", Text: "nothing gives memory back: " + why, Generation: s.gen.number})
		}
		p.notice = why
		return
	}
	p.notice = ""
	p.pace.Acted(now)
	s.log.Warn("recycling the largest worker: memory is critical", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID,
		"private", w.row.Private.Load(), "fresh", w.freshPrivate, "next_after", (p.pace.Next() - now).String())
	s.emitWorker(w, "recycle", fmt.Sprintf("begins: %s: %s", recyclePressure, s.strainText()))
	w.relieves = true
	s.apply(w, slot.OnLeave) // first: there is no room for another beside it
}

// relieving tells whether a worker that is recycled for want of memory has not been replaced yet.
func (s *Supervisor) relieving() bool {
	for _, w := range s.byPID {
		if w.relieves {
			return true
		}
	}
	for _, sl := range s.gen.slots() {
		if w := sl.worker; sl.recycled == recyclePressure && (w == nil || w.state == slot.Starting || w.state == slot.Loading) {
			return true
		}
	}
	return false
}

// victim returns the worker that is to be recycled, nil if none is, and why.
func (s *Supervisor) victim() (*worker, string) {
	held := uint64(max(s.shared.board.Memory().PSS, 0))
	if f := s.pressure.found; f.By == machine.TheMachine && held < f.Used/ownShare {
		return nil, fmt.Sprintf("workers hold %s of the %s that are used on this machine: others hold the rest", sizing.Size(held), sizing.Size(f.Used))
	}
	var ready []*worker
	var all []guard.Candidate
	for _, p := range s.gen.pools {
		serving := s.servingOf(p)
		for _, w := range serving {
			ready = append(ready, w)
			c := guard.Candidate{Private: w.row.Private.Load(), Fresh: w.freshPrivate, Others: len(serving) - 1}
			if p.other { // its PSS is all that is known, and that not before somebody has asked for it
				c.Private, c.Fresh = w.memory(), w.fresh
			}
			all = append(all, c)
		}
	}
	i, why := guard.Victim(all)
	if i < 0 {
		return nil, why
	}
	return ready[i], ""
}

// stopSurge takes back what adds processes to those that serve, and tells whether there was
// something to take back.
func (s *Supervisor) stopSurge(why string) bool {
	switch {
	case s.op != nil:
		// A takeover's old workers hear of nobody, and a successor's are another process's.
		if s.op.takeover || s.op.succeeds || s.op.upgrade || s.op.rollout == nil || s.op.rollout.Committed() || s.op.short {
			return false
		}
		s.op.short = true
		s.feed(rollout.Event{Kind: rollout.OnAbort, Why: why})
	case s.scale != nil:
		if s.scale.to <= s.scale.from || s.scale.request.Force || s.scale.short {
			return false
		}
		s.scale.short = true
		s.feedScale(rollout.Event{Kind: rollout.OnAbort, Why: why})
	case s.restarts != nil:
		if s.restarts.placed || s.restarts.short {
			return false
		}
		s.restarts.short = true
		s.feedRestart(rollout.Event{Kind: rollout.OnAbort, Why: why})
	case s.change != nil:
		return s.giveUpChange(&ipc.Failure{Exit: ipc.ExitTryAgain, What: why, Try: "free memory, or scale down, and load it again"})
	default:
		return false
	}
	return true
}

// giveUpChange gives up the change of models under way, and tells whether that was possible.
func (s *Supervisor) giveUpChange(why error) bool {
	ch := s.change
	switch {
	case ch.unload, ch.refusal != nil:
		return false
	case ch.phase == changePrepares:
		s.dropChange(ch, why)
		return true
	case ch.phase == changeTries && len(ch.trials) > 0:
		ch.refusal = why
		for _, w := range s.byPID {
			if ch.tries(w.slot) {
				s.apply(w, slot.OnQuit)
			}
		}
		return true
	}
	return false
}

// roomToGrow says why what, which adds a process to what serves, cannot be; nil: memory is below
// that level.
func (s *Supervisor) roomToGrow(what string, from guard.Level, try string) error {
	level := s.pressure.watch.State().Level
	if level < from || !s.guards() {
		return nil
	}
	return &ipc.Failure{
		Exit: ipc.ExitTryAgain, What: fmt.Sprintf("%s: memory is %s: %s", what, level, s.strainText()),
		Try: "free memory or raise the limit, and try again" + try,
	}
}

// describeMemory is the same for status and metrics.
func (s *Supervisor) describeMemory() *admin.Memory {
	f, state := s.pressure.found, s.pressure.watch.State()
	if f.Limit == 0 {
		return nil
	}
	sum := s.shared.board.Memory()
	m := &admin.Memory{
		Level: state.Level.String(), Limit: f.Limit, By: f.By, Used: f.Used, Mapped: f.Mapped, Kills: f.Kills,
		MajorFaults: state.Faults, PSS: sum.PSS, Private: sum.Private, Guard: s.gen.cfg.Memory.Guard, Notice: s.pressure.notice,
	}
	if state.Stall >= 0 {
		m.Stalled = &state.Stall
	}
	return m
}
