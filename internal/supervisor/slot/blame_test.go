package slot

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestOfCall(t *testing.T) {
	for _, c := range []struct {
		name string
		end  End
		want bool
	}{
		{"illegal instruction", End{Crash, 4, 0}, true},
		{"trap", End{Crash, 5, 0}, true},
		{"abort", End{Crash, 6, 0}, true},
		{"bus error", End{Crash, 7, 0}, true},
		{"division by zero", End{Crash, 8, 0}, true},
		{"segmentation fault", End{Crash, 11, 0}, true},
		{"the same in a worker that drains", End{Asked, 11, 0}, true},
		{"a fault that Go's run time has met", End{Crash, 0, 2}, true},
		{"the same in a worker that drains", End{Asked, 0, 2}, true},
		{"a shell's word for abort", End{Crash, 0, 134}, true},
		{"a shell's word for a segmentation fault", End{Crash, 0, 139}, true},
		{"a shell's word for KILL", End{Crash, 0, 137}, false},
		{"somebody's KILL", End{Crash, 9, 0}, false},
		{"somebody's TERM", End{Crash, 15, 0}, false},
		{"somebody's INT", End{Crash, 2, 0}, false},
		{"it left by itself", End{Crash, 0, 0}, false},
		{"it gave up with a reason", End{Crash, 0, 3}, false},
		{"exit status of a signal that is none", End{Crash, 0, 128}, false},
		{"as asked", End{Asked, 0, 0}, false},
		{"as asked, by our KILL", End{Asked, 9, 0}, false},
		{"out of memory", End{Memory, 9, 0}, true},
		{"call outlasts the request clock, it leaves", End{Stuck, 0, 0}, true},
		{"call outlasts the request clock, our KILL", End{Stuck, 9, 0}, true},
		{"no heartbeat, our ABRT", End{Hung, 0, 2}, true},
		{"no heartbeat, our KILL", End{Hung, 9, 0}, true},
		{"not ready in time, our KILL", End{Boot, 9, 0}, false},
		{"not ready in time", End{Boot, 0, 2}, false},
		{"not drained in time, our KILL", End{Overdue, 9, 0}, false},
	} {
		if got := c.end.OfCall(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestDeaths(t *testing.T) {
	p := Policy{QuarantineAfter: 3, CrashWindow: time.Minute}
	for _, c := range []struct {
		name string
		at   []time.Duration // seconds
		want int             // which of them is enough, from 1; 0: none
	}{
		{"one", []time.Duration{0}, 0},
		{"two", []time.Duration{0, 1}, 0},
		{"three at once", []time.Duration{5, 5, 5}, 3},
		{"three in a whole window", []time.Duration{0, 30, 60}, 3},
		{"three in more than a window", []time.Duration{0, 30, 61}, 0},
		{"one every half minute and more", []time.Duration{0, 31, 62, 93, 124}, 0},
		{"the first is too old", []time.Duration{0, 61, 62, 63}, 4},
	} {
		var d Deaths
		for i, at := range c.at {
			n, enough := d.Died(at*time.Second, p)
			if enough != (i+1 == c.want) {
				t.Errorf("%s: death %d: %v after %d in the window", c.name, i+1, enough, n)
			}
			if enough && n != 3 {
				t.Errorf("%s: enough after %d", c.name, n)
			}
		}
	}
	var d Deaths
	for range 3 { // once more after a release: as many again
		for i := range 3 {
			if _, enough := d.Died(0, p); enough != (i == 2) {
				t.Errorf("death %d: %v", i+1, enough)
			}
		}
	}
	var never Deaths
	for range 1000 {
		if n, enough := never.Died(0, Policy{CrashWindow: time.Minute}); n != 0 || enough {
			t.Fatal("quarantined, though no number is enough")
		}
	}
}

// TestDeathsAreCounted feeds random deaths: enough are exactly as many as the policy says
// within its window since the last time.
func TestDeathsAreCounted(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		var d Deaths
		p := Policy{QuarantineAfter: 1 + r.IntN(6), CrashWindow: time.Duration(1+r.IntN(100)) * time.Second}
		var since []time.Duration
		now := time.Duration(0)
		for range 100 {
			now += time.Duration(r.Int64N(int64(p.CrashWindow) / 2))
			since = append(since, now)
			recent := 0
			for _, at := range since {
				if now-at <= p.CrashWindow {
					recent++
				}
			}
			n, enough := d.Died(now, p)
			if n != recent || enough != (recent >= p.QuarantineAfter) {
				t.Fatalf("%d of %d: %v, want %d", n, p.QuarantineAfter, enough, recent)
			}
			if enough {
				since = nil
			}
		}
	}
}
