package admission

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestStandsAmongRequests: whoever stands for another line has its turn among the requests, and is
// none of them.
func TestStandsAmongRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Limit: 1, MaxWaiting: 2})
		held, _ := p.Take()
		if n := p.InUse(); n != 0 {
			t.Errorf("%d in use before anybody has said what for", n)
		}
		p.Charge(held, time.Second)
		if n := p.InUse(); n != 1 {
			t.Errorf("%d in use", n)
		}
		order := make(chan string, 3)
		request := func(name string) {
			permit, err := p.Acquire(Claim{Wait: time.Minute})
			if err != nil {
				t.Error(name, err)
			}
			order <- name
			p.Release(permit)
		}
		go request("first")
		synctest.Wait()
		go func() {
			permit, ok := p.Stand(t.Context().Done())
			if !ok {
				t.Error("no permit")
			}
			order <- "stands"
			p.Release(permit)
		}()
		synctest.Wait()
		go request("last")
		synctest.Wait()
		if n := p.Waiting(); n != 2 {
			t.Errorf("%d wait", n)
		}
		if _, err := p.Acquire(Claim{Wait: time.Minute}); !errors.Is(err, ErrFull) {
			t.Error(err)
		}
		p.Release(held)
		synctest.Wait()
		for _, want := range []string{"first", "stands", "last"} {
			if got := <-order; got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	})
}

// TestStandEnds with stop, and where nobody shall wait; no permit is lost then.
func TestStandEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Limit: 1})
		held, _ := p.Take()
		ended := make(chan bool)
		stand := func(stop chan struct{}) {
			_, ok := p.Stand(stop)
			ended <- ok
		}
		stop := make(chan struct{})
		go stand(stop)
		synctest.Wait()
		close(stop)
		if <-ended {
			t.Error("a permit after stop")
		}
		go stand(nil)
		synctest.Wait()
		p.Refuse()
		if <-ended {
			t.Error("a permit though nobody shall wait")
		}
		go stand(nil)
		if <-ended {
			t.Error("it waits though nobody shall")
		}
		if n := p.Waiting(); n != 0 || p.line.Len() != 0 || p.standing != 0 {
			t.Errorf("%d wait, %d stand", n, p.standing)
		}
		p.Release(held)
		if _, ok := p.Stand(nil); !ok {
			t.Error("the permit is lost")
		}
	})
}

// TestAdmitsForTheService: what waits elsewhere counts, and is worked off by all.
func TestAdmitsForTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		others, workers := 0, 4
		p := New(Options{Limit: 1, MaxWaiting: 8, MaxWait: 2 * time.Second, Elsewhere: func() (int, int) { return others, workers }})
		claim := Claim{Wait: time.Minute, Cost: time.Second}
		if err := p.Admits(claim); err != nil {
			t.Error(err)
		}
		permit, _ := p.Take()
		p.Charge(permit, time.Second)
		for _, c := range []struct {
			others, workers int
			wait            time.Duration
			want            error
			expected        time.Duration
		}{
			{4, 4, time.Minute, nil, 2 * time.Second},
			{7, 4, time.Minute, ErrSlow, 2750 * time.Millisecond},
			{7, 40, time.Minute, nil, 1175 * time.Millisecond},
			{8, 40, time.Minute, ErrFull, 1200 * time.Millisecond},
			{4, 4, 3 * time.Second, ErrLate, 2 * time.Second},
			{4, 4, 3500 * time.Millisecond, nil, 2 * time.Second},
			{4, 4, 0, ErrTimeout, 2 * time.Second},
		} {
			others, workers = c.others, c.workers
			if err := p.Admits(Claim{Wait: c.wait, Cost: time.Second, Bytes: 1 << 40}); !errors.Is(err, c.want) {
				t.Errorf("%+v: %v", c, err)
			}
			if got := p.Expected(); got != c.expected {
				t.Errorf("%+v: %v expected", c, got)
			}
		}
	})
}

// TestSoon: how long the next would wait is told only while that can be.
func TestSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Limit: 1})
		is := func(want time.Duration, known bool) {
			t.Helper()
			if wait, ok := p.Soon(); ok != known || known && wait != want {
				t.Errorf("%v, %v; want %v, %v", wait, ok, want, known)
			}
		}
		is(0, true)
		permit, _ := p.Take()
		is(0, false)
		p.Charge(permit, 0)
		is(0, false)
		p.Charge(permit, 10*time.Millisecond)
		is(10*time.Millisecond, true)
		time.Sleep(4 * time.Millisecond)
		is(6*time.Millisecond, true)
		time.Sleep(6500 * time.Microsecond)
		is(0, true)
		time.Sleep(time.Millisecond)
		is(0, false)
		p.Release(permit)
		permit, _ = p.Take()
		is(10*time.Millisecond, true)
		p.Release(permit)
	})
}
