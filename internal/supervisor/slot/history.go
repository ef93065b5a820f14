package slot

import "time"

// Policy bounds a slot's restarts.
type Policy struct {
	MaxCrashes  int           // within CrashWindow; beyond it the slot has failed
	CrashWindow time.Duration // also how long a failed slot waits between attempts
	MaxWait     time.Duration // the longest wait before another restart
	// QuarantineAfter is how many workers one model may end within CrashWindow; 0: any number.
	QuarantineAfter int
}

// firstWait is the waiting time before the second restart: small enough that a service
// of few workers does not notice. The next ones double, up to Policy.MaxWait.
const firstWait = 100 * time.Millisecond

// History is what a slot remembers of its crashes. The zero value has seen none.
type History struct {
	crashes []time.Duration // when, oldest first, within the window
	streak  int             // restarts since the last one without a wait
}

// Crashed records that a worker ended at now, having been ready for served, and
// returns how long to wait before the next start, and whether the slot has failed:
// then the wait is the slow one. jitter is in [0,1).
//
// The first crash costs no wait, the second firstWait, each further one twice as long; ten
// times its wait served takes one step back, so that a worker that dies once an hour is
// always replaced at once.
func (h *History) Crashed(now, served time.Duration, jitter float64, p Policy) (wait time.Duration, failed bool) {
	h.decay(served, p)
	h.forget(now, p.CrashWindow)
	h.crashes = append(h.crashes, now)
	if len(h.crashes) > p.MaxCrashes {
		return spread(p.CrashWindow, jitter), true
	}
	if h.streak > 0 {
		wait = spread(p.backoff(h.streak), jitter)
	}
	h.streak++
	return wait, false
}

// Crashes returns how many crashes lie within the window that ends at now.
func (h *History) Crashes(now time.Duration, p Policy) int {
	h.forget(now, p.CrashWindow)
	return len(h.crashes)
}

func (h *History) forget(now, window time.Duration) {
	for len(h.crashes) > 0 && now-h.crashes[0] > window {
		h.crashes = h.crashes[1:]
	}
}

// decay takes back one step of the back-off for each ten times its wait served.
func (h *History) decay(served time.Duration, p Policy) {
	for h.streak > 0 && served >= 10*p.backoff(h.streak) {
		served -= 10 * p.backoff(h.streak)
		h.streak--
	}
}

func (p Policy) backoff(streak int) time.Duration {
	wait := firstWait
	for i := 1; i < streak && wait < p.MaxWait; i++ {
		wait *= 2
	}
	return min(wait, p.MaxWait)
}

// spread returns d, up to a half longer, so that slots that crashed together do not
// start together.
func spread(d time.Duration, jitter float64) time.Duration {
	return d + time.Duration(jitter*float64(d)/2)
}
