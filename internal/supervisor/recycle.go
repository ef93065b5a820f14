package supervisor

import (
	"fmt"
	"slices"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/guard"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/slot"
)

// Why a worker that serves is replaced.
const (
	recycleRequests = "requests"
	recycleAge      = "age"
	recycleMemory   = "memory"
	recyclePressure = "pressure"
	recycleAsked    = "asked"
)

var recycleReasons = []string{recycleRequests, recycleAge, recycleMemory, recyclePressure, recycleAsked}

// recycleEvery is how often the supervisor looks whether a worker is due: a few loads per
// worker.
const recycleEvery = 250 * time.Millisecond

// measureEvery is how often it reads the memory of workers that do not report their own.
const measureEvery = 5 * time.Second

// freshFor is how long after it became ready a worker's memory is what any worker needs: by
// then its first requests have taken some, and what it shared with its predecessor is its
// own. It is three reports.
const freshFor = 3 * measureEvery

// A pool whose replacement failed waits so long, twice as long each time.
const (
	recycleWait    = 10 * time.Second
	recycleMaxWait = 5 * time.Minute
)

// recycling is what a pool keeps of its recycling.
type recycling struct {
	wait, retryAt time.Duration // after a replacement that failed
	notice        string        // why no worker is recycled for memory any more; empty: one may be
}

// settle notes how a replacement in the pool went.
func (r *recycling) settle(now time.Duration, ok bool) {
	if ok {
		r.wait, r.retryAt = 0, 0
		return
	}
	r.wait = min(max(2*r.wait, recycleWait), recycleMaxWait)
	r.retryAt = now + r.wait
}

// recycleLimits are those of one worker. 0: none.
type recycleLimits struct {
	requests uint64
	age      time.Duration
	memory   int64
}

// drawLimits returns what r gives a worker, spread by its jitter; at is in [0, 1).
func drawLimits(r config.Recycle, at float64) recycleLimits {
	factor := 1 + float64(r.Jitter)/100*(2*at-1)
	l := recycleLimits{memory: int64(r.Memory)}
	if r.Requests > 0 {
		l.requests = max(uint64(factor*float64(r.Requests)), 1)
	}
	if r.Age > 0 {
		l.age = max(time.Duration(factor*float64(r.Age)), 1)
	}
	return l
}

// due says why a worker with these limits shall be replaced; empty: it shall not.
func (l recycleLimits) due(requests uint64, age time.Duration, memory int64) string {
	switch {
	case l.memory > 0 && memory > l.memory:
		return recycleMemory
	case l.requests > 0 && requests >= l.requests:
		return recycleRequests
	case l.age > 0 && age >= l.age:
		return recycleAge
	}
	return ""
}

// requests returns how many w has begun, or as a helper been asked.
func (w *worker) requests() uint64 {
	return w.row.Requests.Load() + w.row.Helped.Load() - w.requestsBefore
}

// memory returns the PSS of w in bytes, as it reported or as we measured; 0: not known.
func (w *worker) memory() int64 {
	if n := w.row.PSS.Load(); n > 0 {
		return n
	}
	return w.measured
}

// freshLimits gives w, which has just become ready, its limits.
func (s *Supervisor) freshLimits(w *worker) {
	w.limits = drawLimits(w.slot.pool.cfg.Recycle, jitter())
	w.fresh, w.freshPrivate = w.memory(), w.row.Private.Load()
}

// recycles tells whether any worker may ever be due.
func (s *Supervisor) recycles() bool {
	return slices.ContainsFunc(s.gen.pools, func(p *pool) bool {
		r := p.cfg.Recycle
		return r.Requests > 0 || r.Age > 0 || r.Memory > 0
	})
}

// checkRecycle begins to replace the worker that has served longest of those that are due:
// one at a time, and while nothing else is under way.
func (s *Supervisor) checkRecycle() {
	if s.stopping != stopNot || s.busy() != "" || len(s.queued) > 0 || s.pressure.watch.State().Level == guard.Critical && s.guards() {
		return // where memory is critical there is no room for another worker beside the old one
	}
	now := s.now()
	for _, w := range s.byPID { // before any of the pool is replaced again
		if w.recyclable(s, now) && w.slot.pool.recycle.notice == "" && w.limits.memory > 0 && w.needs(now) > w.limits.memory {
			s.giveUpMemory(w, w.needs(now))
		}
	}
	var oldest *worker
	why := ""
	for _, w := range s.byPID {
		if !w.recyclable(s, now) || oldest != nil && w.ready > oldest.ready {
			continue
		}
		limits := w.limits
		if w.slot.pool.recycle.notice != "" {
			limits.memory = 0
		}
		if reason := limits.due(w.requests(), now-w.ready, w.memory()); reason != "" {
			oldest, why = w, reason
		}
	}
	if oldest != nil {
		sl := oldest.slot
		s.restart(&restarting{request: admin.RestartRequest{Pool: sl.pool.name, Slot: sl.index}, reason: why})
	}
}

// recyclable tells whether w may be replaced now, if it is due.
func (w *worker) recyclable(s *Supervisor, now time.Duration) bool {
	p := w.slot.pool
	return w.state == slot.Ready && p.gen == s.gen && now >= p.recycle.retryAt
}

// needs returns the memory without which no worker of the pool of w serves, as far as w shows
// it: if it was started for want of less, what it had when it was ready or a moment later. Of
// another that says nothing: it may have been ready before those with whom it shares by now.
func (w *worker) needs(now time.Duration) int64 {
	if w.slot.recycled != recycleMemory {
		return 0
	}
	if now-w.ready < freshFor {
		return max(w.fresh, w.memory())
	}
	return w.fresh
}

// giveUpMemory ends the recycling of a pool for memory: w, which needs so much, is beyond the
// limit, and so would be whatever replaces it.
func (s *Supervisor) giveUpMemory(w *worker, needs int64) {
	p := w.slot.pool
	p.recycle.notice = fmt.Sprintf("recycle.memory is %s, and a new worker has %s: no worker is recycled for memory until the next reload",
		megabytes(w.limits.memory), megabytes(needs))
	s.log.Error("pool not recycled for memory", "pool", p.name, "limit", w.limits.memory, "fresh", needs,
		"try", "raise recycle.memory and reload")
	s.emit(admin.Event{Kind: "recycle", Text: p.recycle.notice, Pool: p.name, Generation: p.gen.number})
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// measuredEvent is the memory of workers that do not report their own.
type measuredEvent map[*worker]int64

// measure reads it beside the loop, where a limit asks for it.
func (s *Supervisor) measure() {
	pids := map[*worker]int{}
	for _, w := range s.byPID {
		wanted := w.limits.memory > 0 || s.pressure.watch.State().Level > guard.Calm
		if wanted && w.state == slot.Ready && w.row.PSS.Load() == 0 {
			pids[w] = w.proc.PID
		}
	}
	if len(pids) == 0 || s.measuring {
		return
	}
	s.measuring = true
	go func() { // ends with its event
		got := measuredEvent{}
		for w, pid := range pids {
			if n, err := machine.PSS(pid); err == nil { // else it has ended
				got[w] = n
			}
		}
		s.send(got)
	}()
}

func (s *Supervisor) onMeasured(got measuredEvent) {
	s.measuring = false
	for w, n := range got {
		w.measured = n
		if w.fresh == 0 {
			w.fresh = n
		}
	}
}
