package supervisor

import (
	"testing"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc/scoreboard"
)

func TestRecycleLimits(t *testing.T) {
	r := config.Recycle{Requests: 1000, Age: time.Hour, Memory: 1 << 30, Jitter: 20}
	for at, want := range map[float64]recycleLimits{
		0:    {800, 48 * time.Minute, 1 << 30},
		0.5:  {1000, time.Hour, 1 << 30},
		0.75: {1100, 66 * time.Minute, 1 << 30},
	} {
		if got := drawLimits(r, at); got != want {
			t.Errorf("%v: %+v, not %+v", at, got, want)
		}
	}
	if got := drawLimits(config.Recycle{Jitter: 50}, 0.9); got != (recycleLimits{}) {
		t.Errorf("nothing asked for: %+v", got)
	}
	if got := drawLimits(config.Recycle{Requests: 1, Age: 1, Jitter: 50}, 0); got != (recycleLimits{requests: 1, age: 1}) {
		t.Errorf("limits of one: %+v", got)
	}
}

func TestRecycleDue(t *testing.T) {
	l := recycleLimits{requests: 10, age: time.Minute, memory: 100}
	for _, c := range []struct {
		requests uint64
		age      time.Duration
		memory   int64
		want     string
	}{
		{9, time.Minute - 1, 100, ""},
		{10, 0, 0, recycleRequests},
		{0, time.Minute, 0, recycleAge},
		{0, 0, 101, recycleMemory},
		{10, time.Minute, 101, recycleMemory},
		{10, time.Minute, 0, recycleRequests},
	} {
		if got := l.due(c.requests, c.age, c.memory); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if got := (recycleLimits{}).due(1<<40, 1<<60, 1<<60); got != "" {
		t.Errorf("without limits: %q", got)
	}
}

// TestRecycleWaits: a pool whose replacements fail is left alone for longer and longer.
func TestRecycleWaits(t *testing.T) {
	var r recycling
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		if r.settle(time.Hour, false); r.retryAt != time.Hour+want*time.Second {
			t.Errorf("%v, not %v", r.retryAt-time.Hour, want*time.Second)
		}
	}
	if r.settle(time.Hour, true); r.retryAt != 0 || r.wait != 0 {
		t.Errorf("%+v after one that went well", r)
	}
}

// TestNeeds: of a worker that was started because of the limit counts what it has when it is
// ready, and a moment later.
func TestNeeds(t *testing.T) {
	const ready = time.Minute
	for _, c := range []struct {
		name     string
		recycled string // why its predecessor was replaced
		after    time.Duration
		pss      int64
		want     int64
	}{
		{"the first of its slot grows at once", "", time.Second, 90, 0},
		{"one recycled for age grows at once", recycleAge, time.Second, 90, 0},
		{"one recycled for memory grows at once", recycleMemory, time.Second, 90, 90},
		{"the same, at the end of the time", recycleMemory, freshFor - 1, 90, 90},
		{"one recycled for memory grows later", recycleMemory, freshFor, 90, 50},
		{"one recycled for memory shrinks", recycleMemory, time.Second, 40, 50},
		{"one that has not reported since", recycleMemory, time.Second, 0, 50},
	} {
		w := &worker{slot: &poolSlot{recycled: c.recycled}, row: &scoreboard.Row{Fields: &scoreboard.Fields{}}, ready: ready, fresh: 50}
		w.row.PSS.Set(c.pss)
		if got := w.needs(ready + c.after); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
