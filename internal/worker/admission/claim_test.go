package admission

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// line is permits that are all held, and what waits for them.
type line struct {
	t       *testing.T
	permits *Permits
	results []chan error
}

func (l *line) wait(c Claim) {
	result := make(chan error, 1)
	l.results = append(l.results, result)
	go func() {
		permit, err := l.permits.Acquire(c)
		if err == nil {
			l.permits.Release(permit)
		}
		result <- err
	}()
	synctest.Wait()
}

// TestBounds: each bound refuses at once, and whoever waits already is not touched.
func TestBounds(t *testing.T) {
	const wait = time.Minute
	for name, c := range map[string]struct {
		options Options
		held    Claim
		waiting []Claim
		next    Claim
		want    error
	}{
		"none":              {Options{}, Claim{}, []Claim{{Wait: wait}, {Wait: wait}}, Claim{Wait: wait}, nil},
		"too many":          {Options{MaxWaiting: 2}, Claim{}, []Claim{{Wait: wait}, {Wait: wait}}, Claim{Wait: wait}, ErrFull},
		"as many":           {Options{MaxWaiting: 2}, Claim{}, []Claim{{Wait: wait}}, Claim{Wait: wait}, nil},
		"too many bytes":    {Options{MaxBytes: 10}, Claim{}, []Claim{{Wait: wait, Bytes: 6}}, Claim{Wait: wait, Bytes: 5}, ErrHeavy},
		"as many bytes":     {Options{MaxBytes: 10}, Claim{}, []Claim{{Wait: wait, Bytes: 6}}, Claim{Wait: wait, Bytes: 4}, nil},
		"one large":         {Options{MaxBytes: 10}, Claim{}, nil, Claim{Wait: wait, Bytes: 50}, nil},
		"too long":          {Options{MaxWait: time.Second}, Claim{Cost: 600 * time.Millisecond}, []Claim{{Wait: wait, Cost: 600 * time.Millisecond}}, Claim{Wait: wait}, ErrSlow},
		"long enough":       {Options{MaxWait: time.Second}, Claim{Cost: 400 * time.Millisecond}, []Claim{{Wait: wait, Cost: 600 * time.Millisecond}}, Claim{Wait: wait}, nil},
		"one slow":          {Options{MaxWait: time.Second}, Claim{Cost: 40 * time.Second}, nil, Claim{Wait: wait}, nil},
		"later than wanted": {Options{}, Claim{Cost: time.Second}, nil, Claim{Wait: 999 * time.Millisecond}, ErrLate},
		"just in time":      {Options{}, Claim{Cost: 800 * time.Millisecond}, nil, Claim{Wait: time.Second}, nil},
		"not quite":         {Options{}, Claim{Cost: 800 * time.Millisecond}, nil, Claim{Wait: time.Second, Cost: time.Millisecond}, ErrLate},
		"no patience":       {Options{}, Claim{}, nil, Claim{}, ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.options.Limit = 1
				l := &line{t: t, permits: New(c.options)}
				held, err := l.permits.Acquire(c.held)
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range c.waiting {
					l.wait(w)
				}
				expected := l.permits.Expected()
				want := c.held.Cost
				for _, w := range c.waiting {
					want += w.Cost
				}
				if expected != want || l.permits.Waiting() != len(c.waiting) {
					t.Errorf("expected to wait %v, want %v; %d wait", expected, want, l.permits.Waiting())
				}
				start := time.Now()
				l.wait(c.next)
				if c.want != nil {
					if err := <-l.results[len(c.waiting)]; !errors.Is(err, c.want) || time.Since(start) != 0 {
						t.Errorf("%v after %v, want %v", err, time.Since(start), c.want)
					}
				}
				l.permits.Release(held)
				for i, r := range l.results {
					if i == len(c.waiting) && c.want != nil {
						continue
					}
					if err := <-r; err != nil {
						t.Errorf("%d: %v", i, err)
					}
				}
				p := l.permits
				if p.Expected() != 0 || p.held != 0 || p.queued != 0 || p.bytes != 0 || p.InUse() != 0 || p.Waiting() != 0 {
					t.Errorf("left: %v held, %v queued, %d bytes, %d in use, %d waiting", p.held, p.queued, p.bytes, p.InUse(), p.Waiting())
				}
			})
		})
	}
}

// TestSharedRunners: with several permits for one runner the wait is that of the runner.
func TestSharedRunners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Limit: 4, Runners: 2})
		for range 4 {
			if _, err := p.Acquire(Claim{Cost: time.Second}); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []time.Duration{2000, 1700, 1400, 1100, 800, 500, 200, 0, 0} {
			if got := p.Expected(); got != want*time.Millisecond {
				t.Errorf("expected %v, want %v ms", got, want)
			}
			time.Sleep(300 * time.Millisecond) // of which both runners run
		}
	})
}

// TestDrop: only who still waits, and only if that is sure.
func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen [][2]int
		l := &line{t: t, permits: New(Options{Limit: 1, Observe: func(inUse, waiting int) { seen = append(seen, [2]int{inUse, waiting}) }})}
		held, err := l.permits.Acquire(Claim{})
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"a", "b", "c"} {
			l.wait(Claim{Wait: time.Minute, Who: who})
		}
		places := l.permits.Line(nil)
		if len(places) != 3 || places[0].Who != "a" || places[2].Who != "c" {
			t.Fatalf("places %v", places)
		}
		if l.permits.Drop(places[1], func(any) bool { return false }) {
			t.Error("dropped without being sure")
		}
		if !l.permits.Drop(places[1], func(who any) bool { return who == "b" }) {
			t.Error("not dropped")
		}
		if err := <-l.results[1]; !errors.Is(err, ErrGone) {
			t.Error(err)
		}
		l.wait(Claim{Wait: time.Minute, Who: "d"}) // in the place that b has left
		if l.permits.Drop(places[1], func(any) bool { return true }) {
			t.Error("dropped somebody else")
		}
		l.permits.Release(held)
		for _, i := range []int{0, 2, 3} {
			if err := <-l.results[i]; err != nil {
				t.Error(err)
			}
		}
		if l.permits.Drop(places[0], func(any) bool { return true }) {
			t.Error("dropped who had its permit")
		}
		want := [][2]int{{1, 0}, {1, 1}, {1, 2}, {1, 3}, {1, 2}, {1, 3}, {1, 2}, {1, 1}, {1, 0}, {0, 0}}
		if seen = slices.Compact(seen); !slices.Equal(seen, want) {
			t.Errorf("observed %v, want %v", seen, want)
		}
	})
}

// TestPatience: when many leave the line it is kept to half of what they waited for, for as
// long as that may be believed; a few who leave, or who come back for more, change nothing.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const cost, patient = 10 * time.Millisecond, time.Second
		p := New(Options{Limit: 1})
		held, err := p.Acquire(Claim{Cost: cost})
		if err != nil {
			t.Fatal(err)
		}
		admitted := func() (n int) { // how many the line takes, who then leave after patient
			var results []chan error
			for {
				result := make(chan error, 1)
				go func() {
					_, err := p.Acquire(Claim{Wait: time.Minute, Cost: cost, Who: "somebody"})
					result <- err
				}()
				synctest.Wait()
				select {
				case err := <-result:
					if !errors.Is(err, ErrSlow) {
						t.Fatal(err)
					}
				default:
					if results = append(results, result); len(results) < 300 {
						continue
					}
				}
				break
			}
			time.Sleep(patient)
			for _, l := range p.Line(nil) {
				p.Drop(l, func(any) bool { return true })
			}
			for _, r := range results {
				if err := <-r; !errors.Is(err, ErrGone) {
					t.Fatal(err)
				}
			}
			return len(results)
		}
		if n := admitted(); n != 300 {
			t.Errorf("before anybody left %d may wait", n)
		}
		for range 3 {
			if n := admitted(); n < 48 || n > 52 { // half a second's worth
				t.Errorf("%d may wait", n)
			}
		}
		time.Sleep(patienceHolds + time.Millisecond)
		if n := admitted(); n != 300 {
			t.Errorf("long afterwards %d may wait", n)
		}
		p.Release(held)
	})
	var few patience
	for range 1000 {
		few.left(time.Millisecond)
		for range leaverWeight {
			few.stayed()
		}
	}
	if few.exceeded(time.Hour) {
		t.Error("few who leave shorten the line")
	}
}

// TestPatienceFollows those who left last.
func TestPatienceFollows(t *testing.T) {
	var p patience
	for range 100 {
		p.left(10 * time.Second)
	}
	for range 100 {
		p.left(time.Second)
	}
	if !p.exceeded(501*time.Millisecond) || p.exceeded(499*time.Millisecond) {
		t.Errorf("patience %v", p.wait)
	}
}
