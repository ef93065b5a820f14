package load

import (
	"math"
	"testing"
	"time"
)

// TestOpenLoop: arrivals go by the clock, whatever the service does. This one stalls
// once, and the wait of everything behind the stall shows.
func TestOpenLoop(t *testing.T) {
	const stall = 100 * time.Millisecond
	addr := serve(t, func(v *visit) {
		for n := 0; v.request(); n++ {
			if n == 5 {
				<-time.After(stall)
			}
			v.ok("w")
		}
	})
	r := run(t, Options{Addr: addr, Keepalive: true, Rate: 200, Duration: 200 * time.Millisecond})
	if q := r.Queue; q.Arrivals != 40 || r.Requests+q.Unsent != 40 || r.Failures.Total() != 0 {
		t.Errorf("%+v\n%v", q, r)
	}
	// While the 6th is stalled, 20 more arrive; the first of them waits longest.
	if q := r.Queue; q.Queued < 15 || q.Longest < 15 || q.MaxWait < stall-10*time.Millisecond {
		t.Errorf("%+v", q)
	}
	if late := r.Histogram.Quantile(0.7); late < 10*time.Millisecond || r.Latency.Max < stall {
		t.Errorf("the stall is not seen: %v", r)
	}
}

// TestUnsent: what still waits at the end is counted, and not sent.
func TestUnsent(t *testing.T) {
	release := make(chan struct{})
	g := generator(t, Options{Keepalive: true, Rate: 1000, Addr: serve(t, func(v *visit) {
		for v.request() {
			<-release
			v.ok("w")
		}
	})})
	reports := start(t, t.Context(), g)
	wait(t, g, func(p Progress) bool { return p.Dials == 1 })
	<-time.After(60 * time.Millisecond) // 60 arrivals
	g.Stop()
	close(release)
	r := <-reports
	sums(t, r)
	if r.Requests != 1 || r.Queue.Unsent < 50 || r.Queue.Arrivals != r.Queue.Unsent+1 {
		t.Errorf("%+v\n%v", r.Queue, r)
	}
}

func TestRequestsBoundAnOpenLoop(t *testing.T) {
	r := run(t, Options{Addr: serve(t, polite), Keepalive: true, Conns: 3, Rate: 2000, Poisson: true, Requests: 50})
	if r.Requests != 50 || r.Answers != 50 {
		t.Errorf("%v", r)
	}
}

func TestSchedules(t *testing.T) {
	a, b, other := newSchedule(1000, true, 1), newSchedule(1000, true, 1), newSchedule(1000, true, 2)
	even := newSchedule(3, false, 0)
	var same int
	for range 100_000 {
		if a.next() != b.next() {
			t.Fatal("the same seed gives two schedules")
		}
		if a.next() == other.next() {
			same++
		}
		before := a.next()
		a.advance()
		b.advance()
		other.advance()
		even.advance()
		if a.next() < before {
			t.Fatal("time goes back")
		}
	}
	if same > 100 {
		t.Errorf("two seeds agree in %d arrivals", same)
	}
	if got := a.next().Seconds(); math.Abs(got-100) > 2 { // 6 standard deviations
		t.Errorf("100000 arrivals at 1000/s take %.1f s", got)
	}
	if got := even.next(); (got - 33333333333333*time.Nanosecond).Abs() > time.Microsecond {
		t.Errorf("100000 arrivals at 3/s take %v", got)
	}
}
