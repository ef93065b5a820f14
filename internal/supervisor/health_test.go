package supervisor

import (
	"context"
	"testing"
	"time"

	"preforkd/internal/config"
)

func TestReadiness(t *testing.T) {
	main := func(ready int) presence { return presence{"main", true, ready, 2} }
	for _, c := range []struct {
		name     string
		stopping stopMode
		pools    []presence
		ready    bool
		reason   string
	}{
		{"all", stopNot, []presence{main(2)}, true, "2 of 2 workers ready"},
		{"one", stopNot, []presence{main(1)}, true, "1 of 2 workers ready"},
		{"none", stopNot, []presence{main(0)}, false, "0 of 2 workers ready"},
		{"a reload has more", stopNot, []presence{main(4)}, true, "2 of 2 workers ready"},
		{"two pools", stopNot, []presence{main(2), {"web", true, 1, 1}}, true, "3 of 3 workers ready"},
		{"a pool has none", stopNot, []presence{main(2), {"web", true, 0, 1}}, false, "pool web: 0 of 1 worker ready"},
		{"a pool that nobody connects to has none", stopNot, []presence{main(2), {"helper", false, 0, 1}}, true, "2 of 3 workers ready"},
		{"delayed", stopDelayed, []presence{main(2)}, false, "stopping: it serves on for drain.delay, then drains"},
		{"graceful", stopGraceful, []presence{main(2)}, false, "stopping: it drains"},
		{"quick", stopQuick, []presence{main(2)}, false, "stopping"},
		{"immediate", stopImmediate, []presence{main(0)}, false, "stopping"},
	} {
		if ready, reason := readiness(c.stopping, c.pools); ready != c.ready || reason != c.reason {
			t.Errorf("%s: %v, %q; want %v, %q", c.name, ready, reason, c.ready, c.reason)
		}
	}
}

// TestHealthDoesNotWaitForABusyLoop: what the loop published last is told while it is busy; one
// that has been busy for long is asked, and taken for dead when it does not answer.
func TestHealthDoesNotWaitForABusyLoop(t *testing.T) {
	s := New(Options{Config: &config.Config{}}) // nobody runs its loop
	s.gen = &generation{pools: []*pool{{name: "main", cfg: &config.Config{}, size: 2}}}
	ended, end := context.WithCancel(t.Context())
	end()
	if live, ready, reason := s.Health(ended); live || ready || reason != "the supervisor's loop does not answer" {
		t.Errorf("before the loop: %v, %v, %s", live, ready, reason)
	}
	s.publish()
	if live, ready, reason := s.Health(ended); !live || !ready || reason != "0 of 2 workers ready" {
		t.Errorf("busy: %v, %v, %s", live, ready, reason)
	}
	s.origin = s.origin.Add(-loopLate - time.Second)
	if live, _, reason := s.Health(ended); live {
		t.Errorf("busy for long: live, %s", reason)
	}
	turn := make(chan struct{})
	go func() { // the loop goes on
		defer close(turn)
		for e := range s.events {
			s.handle(e)
		}
	}()
	if live, _, reason := s.Health(t.Context()); !live {
		t.Errorf("it answers late: %s", reason)
	}
	close(s.events)
	<-turn
}
