package slot

import (
	"math/rand/v2"
	"testing"
	"time"
)

var policy = Policy{MaxCrashes: 5, CrashWindow: time.Minute, MaxWait: 10 * time.Second}

func TestBackOff(t *testing.T) {
	var h History
	now := time.Duration(0)
	for i, want := range []time.Duration{0, 100, 200, 400, 800} {
		wait, failed := h.Crashed(now, 0, 0, policy)
		if wait != want*time.Millisecond || failed {
			t.Errorf("crash %d: wait %v, failed %v; want %v", i+1, wait, failed, want*time.Millisecond)
		}
		now += wait
	}
	if wait, failed := h.Crashed(now, 0, 0.5, policy); !failed || wait != 75*time.Second {
		t.Errorf("sixth crash within the window: wait %v, failed %v", wait, failed)
	}
	now += 2 * time.Minute
	if wait, failed := h.Crashed(now, 0, 0, policy); failed || wait <= 0 {
		t.Errorf("a window later: wait %v, failed %v", wait, failed)
	}
}

func TestServiceTakesBackOffBack(t *testing.T) {
	var h History
	now := time.Duration(0)
	for range 4 {
		h.Crashed(now, 0, 0, policy)
	}
	for range 100 { // once an hour: always at once
		now += time.Hour
		if wait, failed := h.Crashed(now, time.Hour, 0.9, policy); wait != 0 || failed {
			t.Fatalf("after an hour of service: wait %v, failed %v", wait, failed)
		}
	}
	// Ten times the wait takes back one step, no more.
	h = History{}
	for range 3 { // the waits were 0, 100 ms, 200 ms; the next is 400 ms
		h.Crashed(now, 0, 0, policy)
	}
	if wait, _ := h.Crashed(now, 4*time.Second, 0, policy); wait != 200*time.Millisecond {
		t.Errorf("after 4 s of service: wait %v, want one step less than 400 ms", wait)
	}
}

// TestBackOffIsBounded feeds random crashes: the wait never exceeds its bound, and a
// slot fails exactly when its budget is used up.
func TestBackOffIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var h History
		p := Policy{MaxCrashes: 1 + r.IntN(10), CrashWindow: time.Duration(1+r.IntN(100)) * time.Second, MaxWait: time.Duration(1 + r.Int64N(int64(time.Minute)))}
		var at []time.Duration
		now := time.Duration(0)
		for range 50 {
			now += time.Duration(r.Int64N(int64(p.CrashWindow) / 2))
			at = append(at, now)
			wait, failed := h.Crashed(now, time.Duration(r.Int64N(int64(time.Minute))), r.Float64(), p)
			recent := 0
			for _, c := range at {
				if now-c <= p.CrashWindow {
					recent++
				}
			}
			if failed != (recent > p.MaxCrashes) {
				t.Fatalf("%d crashes in the window of %d allowed: failed %v", recent, p.MaxCrashes, failed)
			}
			if limit := max(p.MaxWait, p.CrashWindow) * 3 / 2; wait < 0 || wait > limit {
				t.Fatalf("wait %v, at most %v", wait, limit)
			}
		}
	}
}
