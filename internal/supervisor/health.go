package supervisor

import (
	"context"
	"fmt"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/metrics"
)

// health is how the service is, as the loop published it last. Who asks need not wait for the
// loop, which may be busy: starting a process or telling the main process takes its time.
type health struct {
	ready  bool
	reason string        // why, either way
	turned time.Duration // when the loop published it
}

// loopLate is how old that may be before the loop itself is asked: it turns at least every
// sampleEvery, and the main process waits about as long before it kills a supervisor that hangs.
const loopLate = 5 * time.Second

// loopLimit is how long a loop that is late may take to answer: a container that was frozen
// makes the best of them late.
const loopLimit = time.Second

// publish lets everybody know how the service is by now.
func (s *Supervisor) publish() {
	h := &health{turned: s.now()}
	h.ready, h.reason = readiness(s.stopping, s.presence())
	s.health.Store(h)
}

// Health returns how the service is, within loopLimit.
func (s *Supervisor) Health(ctx context.Context) (live, ready bool, reason string) {
	h := s.health.Load()
	if h == nil || s.now()-h.turned > loopLate { // nil: workers are being taken over, or started
		ctx, cancel := context.WithTimeout(ctx, loopLimit)
		defer cancel()
		if !s.turn(ctx) {
			return false, false, "the supervisor's loop does not answer"
		}
		h = s.health.Load()
	}
	return true, h.ready, h.reason
}

// turn has the loop publish once more; false: ctx or the loop has ended before it did.
func (s *Supervisor) turn(ctx context.Context) bool {
	done := make(chan struct{})
	select {
	case s.events <- askEvent{func() { s.publish(); close(done) }}:
	case <-ctx.Done():
		return false
	case <-s.ended:
		return false
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	case <-s.ended:
		return false
	}
}

// Health is what the admin socket tells.
func (v service) Health(ctx context.Context) (h admin.Health) {
	h.Live, h.Ready, h.Reason = v.s.Health(ctx)
	return h
}

// opsHealth is what the operations listener tells.
func (s *Supervisor) opsHealth(ctx context.Context) (h metrics.Health) {
	h.Live, h.Ready, h.Reason = s.Health(ctx)
	return h
}

// presence is how many workers of a pool serve.
type presence struct {
	pool        string
	listens     bool // clients connect to it, or there is no other pool that matters
	ready, size int
}

// presence returns that of each pool of the generation in charge. During a reload the workers
// of both generations serve.
func (s *Supervisor) presence() []presence {
	pools := make([]presence, len(s.gen.pools))
	index := map[string]int{}
	for i, p := range s.gen.pools {
		pools[i] = presence{pool: p.name, listens: len(p.cfg.Listen) > 0 || p.background && p.name == config.MainPool, size: p.size}
		index[p.name] = i
	}
	for _, w := range s.byPID {
		if i, ok := index[w.slot.pool.name]; ok && w.serves() {
			pools[i].ready++
		}
	}
	return pools
}

// readiness tells whether clients shall be sent here, and why. Each pool to which clients
// connect must have a worker that serves; how busy they are does not count: a load balancer
// that leaves out whoever is busy sends its load to the others, and then has nobody.
func readiness(stopping stopMode, pools []presence) (ready bool, reason string) {
	switch stopping {
	case stopNot:
	case stopDelayed:
		return false, "stopping: it serves on for drain.delay, then drains"
	case stopGraceful:
		return false, "stopping: it drains"
	default:
		return false, "stopping"
	}
	sum := presence{}
	for _, p := range pools {
		if p.ready == 0 && p.listens {
			reason = fmt.Sprintf("0 of %s ready", workers(p.size))
			if len(pools) > 1 {
				reason = "pool " + p.pool + ": " + reason
			}
			return false, reason
		}
		sum.ready += min(p.ready, p.size) // during a reload there are more
		sum.size += p.size
	}
	return true, fmt.Sprintf("%d of %s ready", sum.ready, workers(sum.size))
}
