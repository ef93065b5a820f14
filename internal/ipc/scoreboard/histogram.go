package scoreboard

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets are those of Prometheus' native histograms with schema 4 (its
// documentation, "Native Histograms", section Schema): the one with index i counts
// durations in (2^((i-1)/16), 2^(i/16)] seconds.
//
// Place 0 is the zero bucket: everything up to ZeroThreshold. Places 1 to 432 have the
// indices -319 to 112, from about 1 µs to 128 s. The last place counts what is longer.
const (
	Schema        = 4
	FirstIndex    = -319    // of place 1
	ZeroThreshold = 0x1p-20 // seconds, about 954 ns
	Places        = 434
	overflow      = Places - 1

	histogramBytes = 3584
)

// Histogram counts durations. It lies in the shared memory.
type Histogram struct {
	sum     atomic.Uint64 // nanoseconds
	_       [7]uint64
	buckets [Places]atomic.Uint64
	_       [6]uint64
}

// Observe counts d; a negative one as 0. It takes no lock and allocates nothing.
func (h *Histogram) Observe(d time.Duration) {
	ns := uint64(max(d, 0))
	h.buckets[placeOf(ns)].Add(1)
	h.sum.Add(ns)
}

// The way from nanoseconds to a place: durations between two powers of two fall into 32
// cells of equal width, each narrower than any bucket there, so that a cell touches two
// buckets at most and one comparison decides.
const (
	shortest = 10 // bits of 954 ns
	longest  = 37 // bits of 128 s
	cellBits = 5
)

var (
	// last is the longest duration in nanoseconds of each place.
	last = longestOf()
	// cells is the place of the shortest duration of each cell.
	cells = placesOfCells()
)

func longestOf() (ns [Places]uint64) {
	for place := range overflow {
		ns[place] = uint64(math.Exp2(float64(place+FirstIndex-1)/16) * 1e9)
	}
	ns[overflow] = math.MaxUint64
	return ns
}

func placesOfCells() (places [(longest - shortest + 1) << cellBits]uint16) {
	place := 0
	for cell := range places {
		length := shortest + cell>>cellBits
		start := uint64(1<<cellBits+cell&(1<<cellBits-1)) << (length - 1 - cellBits)
		for start > last[place] {
			place++
		}
		places[cell] = uint16(place)
	}
	return places
}

func placeOf(ns uint64) int {
	length := bits.Len64(ns)
	if length < shortest {
		return 0
	}
	if length > longest {
		return overflow
	}
	cell := (length-shortest)<<cellBits + int(ns>>(length-1-cellBits)&(1<<cellBits-1))
	place := int(cells[cell])
	if ns > last[place] {
		place++
	}
	return place
}

// UpperBound returns the upper bound of a place in seconds: ZeroThreshold for 0,
// infinity for the last one.
func UpperBound(place int) float64 {
	if place >= overflow {
		return math.Inf(1)
	}
	return math.Exp2(float64(place+FirstIndex-1) / 16)
}

// Distribution is what a histogram counted, or a sum or difference of such counts.
type Distribution struct {
	Buckets [Places]uint64
	Sum     uint64 // nanoseconds
}

// AddTo adds what h has counted to d. A duration observed meanwhile may be in Buckets
// and not yet in Sum.
func (h *Histogram) AddTo(d *Distribution) {
	for i := range h.buckets {
		d.Buckets[i] += h.buckets[i].Load()
	}
	d.Sum += h.sum.Load()
}

// Latencies is the sum over the histograms of all rows, free ones included.
func (b *Board) Latencies() *Distribution {
	d := new(Distribution)
	for _, r := range b.rows {
		if r.ever() {
			r.Latency.AddTo(d)
		}
	}
	return d
}

// add counts what d has.
func (h *Histogram) add(d *Distribution) {
	for i, n := range d.Buckets {
		h.buckets[i].Add(n)
	}
	h.sum.Add(d.Sum)
}

// Since returns what was counted after earlier, an older sum over the same rows.
func (d *Distribution) Since(earlier *Distribution) *Distribution {
	diff := &Distribution{Sum: d.Sum - earlier.Sum}
	for i := range d.Buckets {
		diff.Buckets[i] = d.Buckets[i] - earlier.Buckets[i]
	}
	return diff
}

// Count is how many durations were counted.
func (d *Distribution) Count() uint64 {
	var n uint64
	for _, b := range d.Buckets {
		n += b
	}
	return n
}

// Quantile estimates the q-th quantile, q from 0 to 1, as PromQL's histogram_quantile
// does: between the bounds of its bucket the logarithm is taken to rise evenly, in the
// zero bucket the duration itself. What is longer than 128 s counts as 128 s. It is
// false if nothing was counted.
func (d *Distribution) Quantile(q float64) (time.Duration, bool) {
	count := d.Count()
	if count == 0 {
		return 0, false
	}
	rank := min(max(q, 0), 1) * float64(count)
	before := 0.0
	place := 0
	for i, n := range d.Buckets {
		if n == 0 {
			continue
		}
		place = i
		if before+float64(n) >= rank {
			break
		}
		before += float64(n)
	}
	share := min((rank-before)/float64(d.Buckets[place]), 1)
	return time.Duration(math.Round(within(place, share) * 1e9)), true
}

// within returns the seconds at share, from 0 to 1, of the way through a place.
func within(place int, share float64) float64 {
	switch place {
	case 0:
		return ZeroThreshold * share
	case overflow:
		return UpperBound(overflow - 1)
	}
	return math.Exp2((float64(place+FirstIndex-2) + share) / 16)
}
