package supervisor

import (
	"fmt"
	"time"

	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/sizing"
	"preforkd/internal/supervisor/slot"
)

// lookEvery is how often the machine and the limits of cgroups are read again.
const lookEvery = 10 * time.Second

// lookout watches for limits that are changed in place. Only the loop uses it.
type lookout struct {
	at    time.Duration // when to look again
	under bool          // a look is under way
	known machine.Bounds
	seen  machine.Bounds // by the last look; a change counts once two have seen it
	said  string         // what could not be read
	// weighed is the generation whose workers were measured since it serves.
	weighed uint64
}

// limitsEvent is what a look has found.
type limitsEvent struct {
	found machine.Resources
	err   error
}

// weighedEvent is what ready workers hold, PSS in bytes.
type weighedEvent struct {
	found machine.Resources
	held  map[*worker]uint64
}

// look reads the machine beside the loop.
func (s *Supervisor) look() {
	if s.lookout.under || !s.inCharge {
		return
	}
	s.lookout.under = true
	go func() { // ends with its event
		found, err := machine.Read()
		s.send(limitsEvent{found, err})
	}()
}

// warnAnew warns of err if that is not what was said before, which it keeps in said.
func (s *Supervisor) warnAnew(said *string, what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != *said && text != "" {
		s.log.Warn(what, "err", text)
	}
	*said = text
}

// onLimits says once what has changed, and acts when the next look sees it too: what comes and
// goes between two looks changes no pool.
func (s *Supervisor) onLimits(e limitsEvent) {
	l := &s.lookout
	l.under = false
	s.warnAnew(&l.said, "machine not fully known", e.err)
	found := e.found.Bounds
	switch {
	case l.known == (machine.Bounds{}):
		l.known, l.seen = found, found
	case found == l.known:
		l.seen = found
		if s.calm() && l.weighed != s.gen.number && s.shortOfWorkers(found.Cores) {
			l.weighed = s.gen.number
			s.weigh(e.found)
		}
	case found != l.seen:
		l.seen = found
		text := fmt.Sprintf("%s by %s, %s by %s; it was %s, %s", sizing.Cores(found.Cores), e.found.CoresBy, memoryText(found.Memory), e.found.MemoryBy,
			sizing.Cores(l.known.Cores), memoryText(l.known.Memory))
		s.log.Info("limits changed", "cores", found.Cores, "by", e.found.CoresBy, "memory", memoryText(found.Memory), "memory_by", e.found.MemoryBy)
		s.emit(admin.Event{Kind: "limits", Text: text, Generation: s.gen.number})
	case s.calm():
		l.known, l.weighed = found, s.gen.number
		s.weigh(e.found)
	}
}

// calm tells whether nothing is under way.
func (s *Supervisor) calm() bool {
	return s.busy() == "" && len(s.queued) == 0 && s.stopping == stopNot && s.everReady
}

// shortOfWorkers tells whether a pool that sizes itself has fewer workers than cores are for: its
// models were planned with what their files suggest, and may take less.
func (s *Supervisor) shortOfWorkers(cores float64) bool {
	for _, p := range s.gen.pools {
		if p.cfg.Workers.Auto() && p.size == p.asked && p.programs.own && p.size < sizing.Decide(sizing.Input{Cores: cores}).Workers {
			return true
		}
	}
	return false
}

// weigh measures what workers hold, beside the loop.
func (s *Supervisor) weigh(found machine.Resources) {
	pids := map[*worker]int{}
	for _, w := range s.byPID {
		if w.state == slot.Ready && w.slot.pool.gen == s.gen {
			pids[w] = w.proc.PID
		}
	}
	go func() { // ends with its event
		held := map[*worker]uint64{}
		for w, pid := range pids {
			if n, err := machine.PSS(pid); err == nil && n > 0 { // else it has ended
				held[w] = uint64(n)
			}
		}
		s.send(weighedEvent{found, held})
	}()
}

// onWeighed gives each pool that sizes itself its size within the new limits, and says of the
// others what they may be short of. A pool that was scaled by hand is left alone.
func (s *Supervisor) onWeighed(e weighedEvent) {
	for _, p := range s.gen.pools {
		in := p.within(e)
		auto := p.cfg.Workers.Auto()
		if byHand := p.size != p.asked; !auto || byHand {
			in.Asked, in.Scaled, in.Foreign = p.size, byHand, true
		}
		plan := sizing.Decide(in)
		s.log.Info("advice", "pool", p.name, "workers", plan.Workers, "has", p.size, "why", plan.Why)
		if plan.Warning != "" {
			s.log.Warn("pool may not fit", "pool", p.name, "warning", plan.Warning)
		}
		if in.Asked == 0 && plan.Workers != p.size {
			s.resize(&scaling{request: admin.ScaleRequest{Pool: p.name, Workers: plan.Workers}, auto: true, need: in.Need()})
		}
	}
}

// within is what p is sized from within the limits of e: its workers as they were measured, and
// with the memory that they hold counted as theirs.
func (p *pool) within(e weighedEvent) sizing.Input {
	in := sizing.Input{
		Cores: e.found.Cores, Memory: e.found.Memory, Available: e.found.Available, Limited: e.found.Limited,
		ModelBytes: p.modelBytes(), SharedBytes: p.sharedBytes(), Foreign: !p.programs.own,
	}
	held := uint64(0)
	for w, n := range e.held {
		if w.slot.pool == p {
			in.Private = max(in.Private, n)
			held += n
		}
	}
	if in.Available > 0 {
		in.Available += held
		if in.Memory > 0 {
			in.Available = min(in.Available, in.Memory)
		}
	}
	return in
}

// logMachine says, at start and at each reload, from what pools are sized.
func (s *Supervisor) logMachine(found machine.Resources) {
	s.log.Info("cores found", "cores", found.Cores, "by", found.CoresBy)
	s.log.Info("memory found", "memory", memoryText(found.Memory), "by", found.MemoryBy, "available", memoryText(found.Available))
}

// logPlan says what was chosen for p, and why.
func (s *Supervisor) logPlan(p *pool, in sizing.Input, plan sizing.Plan) {
	need := in.Need()
	by := fmt.Sprintf("%s of model files", sizing.Size(in.ModelBytes))
	if p.other {
		by = "nothing: it is not our worker"
	}
	s.log.Info("worker planned", "pool", p.name, "private", sizing.Size(need.Private), "shared", sizing.Size(need.Shared), "from", by)
	s.log.Info("pool sized", "pool", p.name, "workers", plan.Workers, "why", plan.Why)
	if plan.Warning != "" {
		s.log.Warn("pool may not fit", "pool", p.name, "warning", plan.Warning)
	}
	if p.other {
		return
	}
	q := p.cfg.Queue
	s.log.Info("worker bounded", "pool", p.name, "gomaxprocs", plan.Procs, "gomemlimit", memoryText(plan.GoMemory), "engine_threads_per_runner", 1,
		"queue_requests", q.MaxRequests, "queue_bytes", sizing.Size(uint64(q.MaxBytes)))
	if plan.QueueBytes > 0 && uint64(q.MaxBytes) > plan.QueueBytes {
		s.log.Warn("what waits in a worker may fill its memory", "pool", p.name, "queue_bytes", sizing.Size(uint64(q.MaxBytes)),
			"try", fmt.Sprintf("set queue.max_bytes to %dMiB or less, half of what is there for it beside its models", plan.QueueBytes>>20))
	}
}

func memoryText(n uint64) string {
	if n == 0 {
		return "unknown"
	}
	return sizing.Size(n)
}
