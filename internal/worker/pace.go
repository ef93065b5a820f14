package worker

import (
	"context"
	"sync"
	"time"
)

// A worker of a reload proves itself beside workers that serve: one self-test after the
// other would take a core from them for as long as the proof lasts. So each waits
// paceFactor times what the one before took, which leaves three quarters of that core,
// and at most longestPause, so that a slow model is still tried often.
const (
	paceFactor   = 3
	longestPause = 250 * time.Millisecond
)

// pace is when the next self-test may begin.
type pace struct {
	mu   sync.Mutex // held while one runs
	next time.Time
}

// run runs test, once it may or ctx has ended.
func (p *pace) run(ctx context.Context, test func(context.Context) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pause := time.Until(p.next); pause > 0 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	start := time.Now()
	err := test(ctx)
	end := time.Now()
	p.next = end.Add(min(paceFactor*end.Sub(start), longestPause))
	return err
}
