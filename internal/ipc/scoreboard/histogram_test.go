package scoreboard

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"
)

// TestBoundsAreExact computes 2^(i/16) s in ns with 300 bits: the longest duration of a
// place, in whole nanoseconds, is that number rounded down.
func TestBoundsAreExact(t *testing.T) {
	root := new(big.Float).SetPrec(300).SetInt64(2)
	for range 4 {
		root.Sqrt(root) // 2^(1/16)
	}
	for place := range overflow {
		// An octave is a shift, so that its own bound stays exact.
		octave, sixteenths := place/16, place%16
		bound := new(big.Float).SetPrec(300).SetMantExp(big.NewFloat(1e9), octave-20)
		for range sixteenths {
			bound.Mul(bound, root)
		}
		if ns, _ := bound.Uint64(); last[place] != ns {
			t.Errorf("place %d ends with %d ns, want %d", place, last[place], ns)
		}
	}
	if last[overflow-1] != 128e9 {
		t.Errorf("the last bound is %d ns, want 128 s", last[overflow-1])
	}
}

// prometheusIndex is the bucket of v seconds as client_golang's histogram.go finds it
// for schemas above 0: a search for the mantissa among the bounds in [0.5, 1).
func prometheusIndex(v float64) int {
	var bounds []float64
	for i := range 16 {
		bounds = append(bounds, math.Exp2(float64(i)/16-1))
	}
	frac, exp := math.Frexp(v)
	return sort.SearchFloat64s(bounds, frac) + (exp-1)*len(bounds)
}

func TestPlacesArePrometheusBuckets(t *testing.T) {
	check := func(ns uint64) {
		t.Helper()
		want := 0
		if v := float64(ns) / 1e9; v > ZeroThreshold {
			want = min(prometheusIndex(v)-FirstIndex+1, overflow)
		}
		if got := placeOf(ns); got != want {
			t.Errorf("%d ns: place %d, Prometheus says %d", ns, got, want)
		}
	}
	for place := range overflow {
		for _, ns := range []uint64{last[place] - 1, last[place], last[place] + 1} {
			check(ns)
		}
	}
	for range 200_000 {
		check(rand.Uint64N(1 << (1 + rand.N(39))))
	}
	for _, ns := range []uint64{0, 1, 511, 512, 953, 954, 1 << 37, math.MaxInt64} {
		check(ns)
	}
}

// TestCellsTouchTwoBucketsAtMost is what lets placeOf compare once.
func TestCellsTouchTwoBucketsAtMost(t *testing.T) {
	for cell, place := range cells {
		if cell+1 < len(cells) && cells[cell+1] > place+1 {
			t.Errorf("cell %d: places %d to %d", cell, place, cells[cell+1])
		}
	}
}

func TestUpperBound(t *testing.T) {
	for place, want := range map[int]float64{0: ZeroThreshold, 320: 1, 336: 2, 432: 128, 433: math.Inf(1)} {
		if got := UpperBound(place); got != want {
			t.Errorf("place %d: %v, want %v", place, got, want)
		}
	}
}

func TestObserve(t *testing.T) {
	var h Histogram
	var d Distribution
	if _, ok := d.Quantile(0.5); ok {
		t.Error("a quantile of nothing")
	}
	for _, v := range []time.Duration{-5, 0, time.Millisecond, time.Second, time.Hour} {
		h.Observe(v)
	}
	h.AddTo(&d)
	if d.Count() != 5 || d.Sum != uint64(time.Millisecond+time.Second+time.Hour) {
		t.Errorf("count %d, sum %d", d.Count(), d.Sum)
	}
	if d.Buckets[0] != 2 || d.Buckets[320] != 1 || d.Buckets[overflow] != 1 {
		t.Errorf("%v", d.Buckets)
	}
	if q, _ := d.Quantile(1); q != 128*time.Second {
		t.Errorf("longer than the last bound: %v", q)
	}
	earlier := d
	h.Observe(time.Second)
	var later Distribution
	h.AddTo(&later)
	if diff := later.Since(&earlier); diff.Count() != 1 || diff.Sum != uint64(time.Second) {
		t.Errorf("difference %d, %d", diff.Count(), diff.Sum)
	}
}

// TestQuantiles compares with the exact ones: the estimate stays within the bucket, a
// factor of 2^(1/16).
func TestQuantiles(t *testing.T) {
	var h [3]Histogram
	var all []time.Duration
	for i := range 30_000 {
		v := time.Duration(math.Exp(rand.NormFloat64()) * float64(10*time.Millisecond))
		all = append(all, v)
		h[i%3].Observe(v)
	}
	slices.Sort(all)
	var d Distribution
	for i := range h {
		h[i].AddTo(&d)
	}
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		got, ok := d.Quantile(q)
		want := all[int(math.Ceil(q*float64(len(all))))-1]
		if ratio := float64(got) / float64(want); !ok || ratio > 1.0443 || ratio < 1/1.0443 {
			t.Errorf("quantile %v: %v, exactly %v", q, got, want)
		}
	}
	if lo, _ := d.Quantile(-1); lo > all[0]*105/100 {
		t.Errorf("quantile 0: %v, smallest %v", lo, all[0])
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	b := board(t, 1)
	r := b.Rows()[0]
	if n := testing.AllocsPerRun(100, func() {
		r.Latency.Observe(time.Millisecond)
		r.Requests.Add(1)
		r.Respond(200)
		r.BusySince.Mark()
		r.InFlight.Add(1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	h := board(b, 1).Rows()[0].Latency
	b.ReportAllocs()
	d := time.Duration(0)
	for b.Loop() {
		d = (d + 12_345) & (1<<27 - 1)
		h.Observe(d)
	}
}

func BenchmarkPlaceOf(b *testing.B) {
	ns, sum := uint64(0), 0
	for b.Loop() {
		ns = (ns + 12_345) & (1<<27 - 1)
		sum += placeOf(ns)
	}
	_ = sum
}

func BenchmarkCounter(b *testing.B) {
	r := board(b, 1).Rows()[0]
	b.ReportAllocs()
	for b.Loop() {
		r.Requests.Add(1)
	}
}

func BenchmarkMark(b *testing.B) {
	r := board(b, 1).Rows()[0]
	b.ReportAllocs()
	for b.Loop() {
		r.Ticked.Mark()
	}
}

func BenchmarkTotals(b *testing.B) {
	board := board(b, 64)
	b.ReportAllocs()
	for b.Loop() {
		board.Totals()
	}
}
