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
		p := New(1)
		if err := p.Acquire(0); err != nil {
			t.Fatal(err)
		}
		var order []int
		for i := range 5 {
			go func() {
				if err := p.Acquire(time.Minute); err != nil {
					t.Error(err)
				}
				order = append(order, i) // the permit guards it
				p.Release()
			}()
			synctest.Wait() // in line before the next one comes
			if p.Waiting() != i+1 || p.InUse() != 1 {
				t.Fatalf("%d waiting, %d in use", p.Waiting(), p.InUse())
			}
		}
		p.Release()
		synctest.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4}) || p.InUse() != 0 || p.Waiting() != 0 {
			t.Errorf("order %v, %d in use, %d waiting", order, p.InUse(), p.Waiting())
		}
	})
}

func TestTimeoutLeavesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(1)
		if err := p.Acquire(time.Second); err != nil {
			t.Fatal(err)
		}
		if err := p.Acquire(0); !errors.Is(err, ErrTimeout) {
			t.Errorf("without waiting: %v", err)
		}
		results := make(chan error, 3)
		for _, limit := range []time.Duration{3 * time.Second, time.Second, 2 * time.Second} {
			go func() { results <- p.Acquire(limit) }()
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
		p.Release()
		if err := p.Acquire(0); err != nil || p.InUse() != 1 {
			t.Errorf("after all gave up: %v, %d in use", err, p.InUse())
		}
	})
}

// TestManyAtOnce checks that never more than the permits are held, that none is lost,
// and that both hold when waits end at the moment at which a permit is granted.
func TestManyAtOnce(t *testing.T) {
	const size, callers, rounds = 3, 16, 400
	p := New(size)
	var held, served atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range rounds {
				limit := time.Duration(rand.IntN(50)) * time.Microsecond
				if p.Acquire(limit) != nil {
					continue
				}
				if n := held.Add(1); n > size {
					t.Errorf("%d hold one of %d permits", n, size)
				}
				served.Add(1)
				held.Add(-1)
				p.Release()
			}
		})
	}
	wg.Wait()
	if p.InUse() != 0 || p.Waiting() != 0 || served.Load() == 0 {
		t.Errorf("%d in use, %d waiting, %d served", p.InUse(), p.Waiting(), served.Load())
	}
}

func TestAcquireAllocatesNothing(t *testing.T) {
	p := New(1)
	if n := testing.AllocsPerRun(1000, func() {
		if p.Acquire(time.Second) == nil {
			p.Release()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMisuseIsABug(t *testing.T) {
	for name, misuse := range map[string]func(){
		"no permits":        func() { New(0) },
		"released too many": func() { New(1).Release() },
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
	p := New(1)
	b.ReportAllocs()
	for b.Loop() {
		if p.Acquire(time.Second) == nil {
			p.Release()
		}
	}
}

// BenchmarkAcquireContended: more goroutines than permits, each holding one for as long
// as a small model runs.
func BenchmarkAcquireContended(b *testing.B) {
	p := New(1)
	var work atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if p.Acquire(time.Minute) != nil {
				b.Error("no permit within a minute")
			}
			for range 400 {
				work.Add(1)
			}
			p.Release()
		}
	})
}
