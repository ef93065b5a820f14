package supervisor

import (
	"fmt"
	"strings"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/guard"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/sizing"
	"preforkd/internal/supervisor/slot"
)

// scaling is a change of a pool's size: asked for, or under way.
type scaling struct {
	request admin.ScaleRequest
	steps   []int         // of signals, each one more or one fewer; then request says nothing
	done    chan scaleEnd // with room for one; nil for signals and limits
	auto    bool          // limits changed, or workers were measured: the new size is what the pool is to have
	need    sizing.Need   // with auto: what they were measured with

	pool     *pool
	from, to int
	procs    int    // of the pool before
	goMemory uint64 // of the pool before
	began    time.Duration
	change   *rollout.Resize
	events   []rollout.Event // that arose while actions were carried out
	busy     bool
	short    bool // it is being taken back for want of memory
}

type scaleEnd struct {
	result admin.ScaleResult
	err    error
}

func (sc *scaling) end(e scaleEnd) {
	if sc != nil && sc.done != nil {
		sc.done <- e
	}
}

// has tells whether sc decides about sl.
func (sc *scaling) has(sl *poolSlot) bool {
	return sc != nil && sl.pool == sc.pool && sc.change != nil && sc.change.Has(sl.index)
}

// maxSteps is how many signals wait at most: more would go beyond both ends of the range.
const maxSteps = 2 * sizing.MaxWorkers

// step makes the main pool larger or smaller by one, for a signal. Signals that come
// while something is under way are applied after it, together.
func (s *Supervisor) step(by int) {
	if err := s.mayOperate("scale", false); err != nil {
		s.log.Warn("signal ignored", "err", err)
		return
	}
	if n := len(s.queued); n > 0 && s.queued[n-1].scale != nil && s.queued[n-1].scale.done == nil {
		if sc := s.queued[n-1].scale; len(sc.steps) < maxSteps {
			sc.steps = append(sc.steps, by)
		}
		return
	}
	s.resize(&scaling{steps: []int{by}})
}

// resize begins sc, or has it wait.
func (s *Supervisor) resize(sc *scaling) {
	if err := s.mayOperate("scale", sc.request.NoWait); err != nil {
		sc.end(scaleEnd{err: err})
		return
	}
	s.queued = append(s.queued, queued{scale: sc})
	s.next()
}

// beginScale starts the workers that are to come, or lets those leave that are to go.
func (s *Supervisor) beginScale(sc *scaling) {
	if err := s.planScale(sc); err != nil {
		s.log.Warn("pool not scaled", "err", err)
		sc.end(scaleEnd{err: err})
		return
	}
	if sc.to == sc.from {
		text := fmt.Sprintf("pool %s has %s already: nothing changed", sc.pool.name, workers(sc.from))
		s.log.Info("pool not scaled: it has that size", "pool", sc.pool.name, "workers", sc.from, "signals", len(sc.steps))
		s.emit(admin.Event{Kind: "scale", Text: text, Pool: sc.pool.name, Generation: s.gen.number})
		sc.end(scaleEnd{result: sc.result(sc.from, 0, text)})
		return
	}
	s.scale, sc.began, sc.procs, sc.goMemory = sc, s.now(), sc.pool.procs, sc.pool.goMemory
	text := fmt.Sprintf("pool %s: %d -> %s", sc.pool.name, sc.from, workers(sc.to))
	s.log.Info("scaling", "pool", sc.pool.name, "from", sc.from, "to", sc.to)
	s.emit(admin.Event{Kind: "scale", Text: text, Pool: sc.pool.name, Generation: s.gen.number})
	sc.pool.size = sc.to
	in := s.room(sc.pool)
	in.Asked = sc.to
	sc.pool.procs, sc.pool.goMemory = sizing.Decide(in).Procs, sizing.Share(sc.goMemory, sc.from, sc.to)
	var actions []rollout.Action
	if sc.to > sc.from {
		for i := sc.from; i < sc.to; i++ {
			sc.pool.slots = append(sc.pool.slots, &poolSlot{pool: sc.pool, index: i})
		}
		sc.change, actions = rollout.Grow(sc.from, sc.to)
	} else {
		var ready []bool
		for _, sl := range sc.pool.slots[sc.to:] {
			ready = append(ready, sl.worker != nil && sl.worker.state == slot.Ready)
		}
		sc.change, actions = rollout.Shrink(sc.to, ready)
	}
	s.scaleDo(sc, actions)
}

// planScale finds out what sc asks for, or why it cannot be.
func (s *Supervisor) planScale(sc *scaling) (err error) {
	if sc.pool, err = s.gen.poolNamed(sc.request.Pool); err != nil {
		return err
	}
	sc.from = sc.pool.size
	if sc.auto && sc.from != sc.pool.asked {
		return &ipc.Failure{Exit: ipc.ExitTryAgain, What: "scale pool " + sc.pool.name + " to its limits: it was scaled by hand meanwhile"}
	}
	sc.to = sizing.Change{Workers: sc.request.Workers, Relative: sc.request.Relative}.Of(sc.from)
	if sc.steps != nil {
		sc.to = sizing.Steps(sc.from, sc.steps)
	}
	if err := s.memoryCarries(sc); err != nil {
		return err
	}
	stays := 0
	for _, sl := range sc.pool.slots[:min(sc.from, sc.to)] {
		if sl.worker != nil && sl.worker.state == slot.Ready {
			stays++
		}
	}
	if sc.to < sc.from && stays == 0 {
		return &ipc.Failure{
			Exit: ipc.ExitTryAgain, What: fmt.Sprintf("scale pool %s: none of the %s that would stay is ready", sc.pool.name, workers(sc.to)),
			Try: "preforkd status shows why; try again when one is",
		}
	}
	return nil
}

// memoryCarries says why sc cannot be, by its size or for want of memory.
func (s *Supervisor) memoryCarries(sc *scaling) error {
	room := s.room(sc.pool)
	if sc.auto { // decided by what the workers were measured with
		room.Private, room.Shared = sc.need.Private, sc.need.Shared
	} else if measured := s.measuredPrivate(sc.pool); measured > room.Need().Private { // they have grown beyond what was planned
		room.Private, room.Shared = measured, room.SharedBytes
	}
	what := "scale pool " + sc.pool.name
	why, memory := sizing.Refuse(room, sc.from, sc.to)
	switch {
	case why != "" && !memory:
		return &ipc.Failure{Exit: ipc.ExitUsage, What: what + ": " + why, Try: fmt.Sprintf("it has %s now", workers(sc.from))}
	case sc.to <= sc.from:
	case sc.request.Force:
		if memory {
			s.log.Warn("pool scaled beyond what memory carries, as it was forced", "pool", sc.pool.name, "workers", sc.to, "why", why)
		}
	default:
		if err := s.roomToGrow(what, guard.Tight, "; --force does it all the same"); err != nil || !memory {
			return err
		}
		return &ipc.Failure{Exit: ipc.ExitConfig, What: what + ": " + why, Try: "ask for fewer, free memory or raise the limit; --force does it all the same"}
	}
	return nil
}

// feedScale hands the change what has happened, in order, and carries out what follows.
func (s *Supervisor) feedScale(e rollout.Event) {
	sc := s.scale
	if sc == nil {
		return
	}
	sc.events = append(sc.events, e)
	if sc.busy {
		return
	}
	s.scaleDo(sc, nil)
}

// scaleDo carries out actions, and what the events that they raise lead to.
func (s *Supervisor) scaleDo(sc *scaling, actions []rollout.Action) {
	sc.busy = true
	for {
		for _, a := range actions {
			s.scaleStep(sc, a)
		}
		if len(sc.events) == 0 || s.scale != sc {
			break
		}
		e := sc.events[0]
		sc.events = sc.events[1:]
		actions = sc.change.Handle(e)
	}
	sc.busy = false
	s.next()
}

func (s *Supervisor) scaleStep(sc *scaling, a rollout.Action) {
	s.log.Debug("scale", "action", a.String())
	switch a.Do {
	case rollout.Start:
		s.start(sc.pool.slots[a.Worker.Slot])
	case rollout.Drain, rollout.Remove:
		if !s.takeAway(sc.pool.slots[a.Worker.Slot], a.Do) {
			sc.events = append(sc.events, rollout.Event{Kind: rollout.OnEnded, Worker: a.Worker})
		}
	case rollout.Finish:
		s.endScale(sc, a)
	}
}

// endScale ends the change: the pool has its size, or the former one again.
func (s *Supervisor) endScale(sc *scaling, a rollout.Action) {
	s.scale = nil
	took := s.now() - sc.began
	size := sc.to
	var end scaleEnd
	switch a.Outcome {
	case rollout.RolledBack:
		size = sc.from
		sc.pool.procs, sc.pool.goMemory = sc.procs, sc.goMemory
		end.err = &ipc.Failure{
			Exit: ipc.ExitRolledBack, What: fmt.Sprintf("pool %s still has %s: %s", sc.pool.name, workers(sc.from), a.Reason),
			Try: withoutTry(a.Reason, "correct it and scale again; the workers that ran serve"),
		}
	case rollout.Stopped:
		end.err = stoppingFailure("scale")
	}
	if sc.pool.size = size; sc.auto && end.err == nil {
		sc.pool.asked = size
	}
	if s.stopping == stopNot {
		sc.pool.slots = sc.pool.slots[:size]
		s.keepGeneration(s.current())
	}
	text := fmt.Sprintf("pool %s has %s", sc.pool.name, workers(size))
	if end.err != nil {
		s.log.Error("scaling failed", "pool", sc.pool.name, "workers", size, "reason", a.Reason, "took", took.Round(time.Millisecond))
	} else {
		s.log.Info("scaled", "pool", sc.pool.name, "workers", size, "took", took.Round(time.Millisecond))
	}
	s.emit(admin.Event{Kind: "scale", Text: text + suffix(a.Reason), Pool: sc.pool.name, Generation: s.gen.number})
	if a.Outcome == rollout.Committed && sc.to > sc.from && !sc.pool.other {
		s.levelOut(sc.pool)
	}
	end.result = sc.result(size, took, text)
	sc.end(end)
}

func (sc *scaling) result(size int, took time.Duration, message string) admin.ScaleResult {
	return admin.ScaleResult{Pool: sc.pool.name, Before: sc.from, Workers: size, Took: admin.Duration(took), Message: message}
}

// withoutTry returns what to do about a failure, unless its reason says so already.
func withoutTry(reason, try string) string {
	if strings.Contains(reason, "\n  try: ") {
		return ""
	}
	return try
}

func workers(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
}
