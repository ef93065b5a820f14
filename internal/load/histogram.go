package load

import (
	"math/bits"
	"time"
)

// A Histogram counts durations. Buckets are linear within each power of two, 128 of
// them, so that a quantile is at most 1/128 (0.8 %) above the true value. Durations
// from 1 ns to 18 minutes are told apart; longer ones count as the longest.
//
// The zero value is empty and ready. Not safe for concurrent use: each client has its
// own, and Merge adds them up.
type Histogram struct {
	octaves [octaves]*[perOctave]uint64 // made when first needed: 1 KB each
	count   uint64
	sum     time.Duration
	max     time.Duration
}

const (
	octaveBits = 7
	perOctave  = 1 << octaveBits
	maxBits    = 40 // 2^40 ns = 18 minutes
	octaves    = maxBits - octaveBits + 1
)

// place returns where v is counted. The first row is linear from 0; row o > 0 has the
// values of octaveBits+o bits without their leading one.
func place(v uint64) (row, col int) {
	if v >= 1<<maxBits {
		v = 1<<maxBits - 1
	}
	if v < perOctave {
		return 0, int(v)
	}
	row = bits.Len64(v) - octaveBits
	return row, int(v>>(row-1)) - perOctave
}

// upper returns the largest value that is counted in a bucket.
func upper(row, col int) time.Duration {
	if row == 0 {
		return time.Duration(col)
	}
	return time.Duration((perOctave+col+1)<<(row-1) - 1)
}

// Record counts d; a negative one as 0. It allocates only when d is the first of its
// power of two.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	row, col := place(uint64(d))
	if h.octaves[row] == nil {
		h.octaves[row] = new([perOctave]uint64)
	}
	h.octaves[row][col]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

// Merge adds what other counted to h.
func (h *Histogram) Merge(other *Histogram) {
	for row, from := range other.octaves {
		if from == nil {
			continue
		}
		if h.octaves[row] == nil {
			h.octaves[row] = new([perOctave]uint64)
		}
		for col, n := range from {
			h.octaves[row][col] += n
		}
	}
	h.count += other.count
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.count }

// Max returns the longest duration, exactly; 0 without any.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the mean, exactly; 0 without any.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// Quantile returns the smallest duration that at least the share q, from 0 to 1, of
// the recorded ones do not exceed, rounded up by at most 0.8 % and never above Max; 0
// without any.
func (h *Histogram) Quantile(q float64) time.Duration {
	want := max(uint64(q*float64(h.count)+0.9999999), 1) // rounded up
	var seen uint64
	for row, counts := range h.octaves {
		if counts == nil {
			continue
		}
		for col, n := range counts {
			if seen += n; seen >= want {
				return min(upper(row, col), h.max)
			}
		}
	}
	return h.max
}

// Summary is a Histogram in a few numbers.
type Summary struct {
	Mean time.Duration `json:"mean_ns"`
	P50  time.Duration `json:"p50_ns"`
	P90  time.Duration `json:"p90_ns"`
	P95  time.Duration `json:"p95_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
}

// Summary returns the usual quantiles.
func (h *Histogram) Summary() Summary {
	return Summary{
		Mean: h.Mean(), P50: h.Quantile(0.50), P90: h.Quantile(0.90), P95: h.Quantile(0.95),
		P99: h.Quantile(0.99), P999: h.Quantile(0.999), Max: h.max,
	}
}
