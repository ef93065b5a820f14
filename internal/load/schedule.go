package load

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// schedule is the sequence of an open loop's arrivals, as times since the start.
type schedule struct {
	gap    float64    // mean time between arrivals, ns
	random *rand.Rand // nil: constant gaps
	n      uint64     // arrivals so far
	at     float64    // the next arrival, ns
}

func newSchedule(rate float64, poisson bool, seed uint64) schedule {
	s := schedule{gap: float64(time.Second) / rate}
	if poisson {
		s.random = rand.New(rand.NewPCG(seed, 0))
		s.at = s.gap * s.random.ExpFloat64()
	}
	return s
}

func (s *schedule) next() time.Duration { return time.Duration(s.at) }

func (s *schedule) advance() {
	s.n++
	if s.random != nil {
		s.at += s.gap * s.random.ExpFloat64()
	} else {
		s.at = float64(s.n) * s.gap // not a sum: errors would add up
	}
}

// arrivals hands the schedule's arrivals to clients, in order. A client that asks gets
// the turn: it waits until the next arrival is due, so that the clock wakes only the
// one that will send. While all clients are busy nobody has the turn, and arrivals
// that become due wait.
type arrivals struct {
	mu    sync.Mutex // the turn; guards what follows
	taken schedule   // next: the first arrival that no client has
	due   schedule   // the same schedule, ahead: next is the first that is not due
	queue Queue
}

// Queue accounts for the arrivals of an open loop. Those during warm-up count too.
type Queue struct {
	// Arrivals were due within the run; each was sent or is in Unsent.
	Arrivals uint64 `json:"arrivals"`
	// Queued arrivals became due while every client was busy.
	Queued uint64 `json:"queued"`
	// Longest is the largest number that waited at once.
	Longest uint64 `json:"longest"`
	// MaxWait is the longest time that one waited before it was sent.
	MaxWait time.Duration `json:"max_wait_ns"`
	// Unsent arrivals still waited at the end.
	Unsent uint64 `json:"unsent"`
}

func newArrivals(o *Options) *arrivals {
	s, due := newSchedule(o.Rate, o.Poisson, o.Seed), newSchedule(o.Rate, o.Poisson, o.Seed)
	return &arrivals{taken: s, due: due}
}

// take waits for the next arrival and returns when it was due and what admit says; ok
// is also false when the run ends first.
func (a *arrivals) take(g *Generator, nap *time.Timer) (at time.Duration, measured, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at = a.taken.next()
	if at >= g.ends() {
		return 0, false, false
	}
	now := g.now()
	late := at <= now
	if !late && !g.sleepUntil(at, nap) {
		return 0, false, false
	}
	if measured, ok = g.admit(at); !ok {
		return 0, false, false
	}
	if late {
		a.look(now)
		a.queue.Queued++
		a.queue.Longest = max(a.queue.Longest, a.due.n-a.taken.n)
		a.queue.MaxWait = max(a.queue.MaxWait, now-at)
	}
	a.taken.advance()
	return at, measured, true
}

// look moves due up to now.
func (a *arrivals) look(now time.Duration) {
	for a.due.next() <= now {
		a.due.advance()
	}
}

// finish settles the account of a run in which no arrival counts from end on.
func (a *arrivals) finish(end time.Duration) Queue {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.look(end - 1)
	q := a.queue
	q.Arrivals = max(a.due.n, a.taken.n) // equal but for an end between two clocks' readings
	q.Unsent = q.Arrivals - a.taken.n
	return q
}

// coarse is how long before a moment the runtime's timers are not exact enough: its
// poller waits in whole milliseconds.
const coarse = 2 * time.Millisecond

// sleepUntil waits until at and returns true, or false when sending ends first.
func (g *Generator) sleepUntil(at time.Duration, nap *time.Timer) bool {
	for {
		if g.quitting() {
			return false
		}
		d := at - g.now()
		switch {
		case d <= 0:
			return true
		case d > coarse:
			if !g.nap(d-coarse, nap) {
				return false
			}
		default:
			exactSleep(d)
		}
	}
}

// nap sleeps for d by the runtime's clock; false when sending ends first.
func (g *Generator) nap(d time.Duration, timer *time.Timer) bool {
	timer.Reset(d)
	select {
	case <-timer.C:
		return true
	case <-g.quit:
		timer.Stop()
		return false
	}
}

const prSetTimerSlack = 29 // PR_SET_TIMERSLACK, prctl(2)

// exactSleep blocks the thread for d. Without the prctl the kernel would wake it up to
// 50 µs late to save energy, which every latency would show; that the thread keeps the
// setting harms nothing.
func exactSleep(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, 1, 0)
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil) // a signal ends it early: the caller looks at the clock
}
