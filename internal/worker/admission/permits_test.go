package admission

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Limit: 1})
		held, err := p.Acquire(Claim{})
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		for i := range 5 {
			go func() {
				permit, err := p.Acquire(Claim{Wait: time.Minute})
				if err != nil {
					t.Error(err)
				}
				order = append(order, i) // the permit guards it
				p.Release(permit)
			}()
			synctest.Wait() // in line before the next one comes
			if p.Waiting() != i+1 || p.InUse() != 1 {
				t.Fatalf("%d waiting, %d in use", p.Waiting(), p.InUse())
			}
		}
		p.Release(held)
		synctest.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4}) || p.InUse() != 0 || p.Waiting() != 0 {
			t.Errorf("order %v, %d in use, %d waiting", order, p.InUse(), p.Waiting())
		}
	})
}

func TestTimeoutLeavesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Limit: 1})
		held, err := p.Acquire(Claim{Wait: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Acquire(Claim{}); !errors.Is(err, ErrTimeout) {
			t.Errorf("without waiting: %v", err)
		}
		results := make(chan error, 3)
		for _, limit := range []time.Duration{3 * time.Second, time.Second, 2 * time.Second} {
			go func() {
				_, err := p.Acquire(Claim{Wait: limit})
				results <- err
			}()
			synctest.Wait()
		}
		start := time.Now()
		for i := 1; i <= 3; i++ {
			if err := <-results; !errors.Is(err, ErrTimeout) {
				t.Error(err)
			}
			if took := time.Since(start); took != time.Duration(i)*time.Second || p.Waiting() != 3-i {
				t.Errorf("after %v %d wait", took, p.Waiting())
			}
		}
		p.Release(held)
		if _, err := p.Acquire(Claim{}); err != nil || p.InUse() != 1 {
			t.Errorf("after all gave up: %v, %d in use", err, p.InUse())
		}
	})
}

// TestRefuse: whoever waits is sent away, and so is who comes, until a permit is free.
func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Limit: 1})
		held, err := p.Acquire(Claim{})
		if err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := p.Acquire(Claim{Wait: time.Minute})
				results <- err
			}()
		}
		synctest.Wait()
		start := time.Now()
		p.Refuse()
		for range 3 {
			if err := <-results; !errors.Is(err, ErrRefused) {
				t.Error(err)
			}
		}
		if _, err := p.Acquire(Claim{Wait: time.Minute}); !errors.Is(err, ErrRefused) || time.Since(start) > 0 || p.Waiting() != 0 {
			t.Errorf("later: %v after %v, %d waiting", err, time.Since(start), p.Waiting())
		}
		p.Refuse() // again changes nothing
		p.Release(held)
		if _, err := p.Acquire(Claim{Wait: time.Minute}); err != nil {
			t.Errorf("with one free: %v", err)
		}
	})
}

// TestManyAtOnce checks that never more than the permits are held, that none is lost,
// and that both hold when waits end at the moment at which a permit is granted.
func TestManyAtOnce(t *testing.T) {
	const size, callers, rounds = 3, 16, 400
	p := New(Options{Limit: size})
	var owned [size]atomic.Bool
	var held, served atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range rounds {
				limit := time.Duration(rand.IntN(50)) * time.Microsecond
				permit, err := p.Acquire(Claim{Wait: limit})
				if err != nil {
					continue
				}
				if owned[permit].Swap(true) {
					t.Errorf("permit %d is held twice", permit)
				}
				if n := held.Add(1); n > size {
					t.Errorf("%d hold one of %d permits", n, size)
				}
				served.Add(1)
				held.Add(-1)
				owned[permit].Store(false)
				p.Release(permit)
			}
		})
	}
	wg.Wait()
	if p.InUse() != 0 || p.Waiting() != 0 || served.Load() == 0 {
		t.Errorf("%d in use, %d waiting, %d served", p.InUse(), p.Waiting(), served.Load())
	}
}

func TestAcquireAllocatesNothing(t *testing.T) {
	p := New(Options{Limit: 1})
	if n := testing.AllocsPerRun(1000, func() {
		if permit, err := p.Acquire(Claim{Wait: time.Second}); err == nil {
			p.Release(permit)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMisuseIsABug(t *testing.T) {
	for name, misuse := range map[string]func(){
		"no permits":        func() { New(Options{}) },
		"released too many": func() { New(Options{Limit: 1}).Release(0) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			misuse()
		})
	}
}

func BenchmarkAcquireFree(b *testing.B) {
	p := New(Options{Limit: 1})
	b.ReportAllocs()
	for b.Loop() {
		if permit, err := p.Acquire(Claim{Wait: time.Second}); err == nil {
			p.Release(permit)
		}
	}
}

// BenchmarkAcquireContended: more goroutines than permits, each holding one for as long
// as a small model runs.
func BenchmarkAcquireContended(b *testing.B) {
	p := New(Options{Limit: 1})
	var work atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			permit, err := p.Acquire(Claim{Wait: time.Minute})
			if err != nil {
				b.Error("no permit within a minute")
			}
			for range 400 {
				work.Add(1)
			}
			p.Release(permit)
		}
	})
}
