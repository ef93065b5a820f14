package load

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var parts [3]Histogram
	var all []time.Duration
	for i := range 30_000 {
		d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		if i%1000 == 0 {
			d *= 10_000 // seconds
		}
		all = append(all, d)
		parts[i%3].Record(d)
	}
	var h Histogram
	for i := range parts {
		h.Merge(&parts[i])
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1} {
		exact := all[max(int(q*float64(len(all))+0.9999999)-1, 0)]
		if got := h.Quantile(q); got < exact || float64(got) > float64(exact)*(1+1.0/perOctave)+1 {
			t.Errorf("quantile %v: %v, exactly %v", q, got, exact)
		}
	}
	if h.Count() != 30_000 || h.Max() != all[len(all)-1] || h.Quantile(1) != h.Max() {
		t.Errorf("%d, max %v", h.Count(), h.Max())
	}
}

func TestBuckets(t *testing.T) {
	last := time.Duration(-1)
	for row := range octaves {
		for col := range perOctave {
			u := upper(row, col)
			if u <= last {
				t.Fatalf("bucket %d,%d ends at %d, the one before at %d", row, col, u, last)
			}
			for _, v := range []time.Duration{last + 1, u} {
				if r, c := place(uint64(v)); r != row || c != col {
					t.Fatalf("%d is counted in %d,%d, not in %d,%d", v, r, c, row, col)
				}
			}
			last = u
		}
	}
	var h Histogram
	h.Record(-5)
	h.Record(1 << 62)
	if h.Quantile(0.5) != 0 || h.Max() != 1<<62 || h.Count() != 2 {
		t.Errorf("%v, %v", h.Quantile(0.5), h.Max())
	}
	if new(Histogram).Summary() != (Summary{}) {
		t.Error("an empty histogram has quantiles")
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	b.ReportAllocs()
	for i := range b.N {
		h.Record(time.Duration(i) * 97 % time.Second)
	}
}
