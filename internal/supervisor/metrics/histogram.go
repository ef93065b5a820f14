package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"preforkd/internal/ipc/scoreboard"
)

// The classic buckets are every power of two between these, in seconds: bounds of the
// scoreboard's own places, so that what they count is exact.
const (
	shortestClassic = -13 // 122 µs
	longestClassic  = 6   // 64 s
)

// histogram is a distribution of durations as a metric of both kinds: with classic
// buckets for text, and the native ones of schema 4 for protobuf.
type histogram struct {
	desc *prometheus.Desc
	d    *scoreboard.Distribution
}

// Desc implements prometheus.Metric.
func (h histogram) Desc() *prometheus.Desc { return h.desc }

// Write implements prometheus.Metric.
func (h histogram) Write(m *dto.Metric) error {
	out := &dto.Histogram{
		SampleCount:   new(h.d.Count()),
		SampleSum:     new(float64(h.d.Sum) / 1e9),
		Schema:        new(int32(scoreboard.Schema)),
		ZeroThreshold: new(float64(scoreboard.ZeroThreshold)),
		ZeroCount:     new(h.d.Buckets[0]),
	}
	h.classic(out)
	h.native(out)
	m.Histogram = out
	return nil
}

// classic adds the cumulative buckets. That of infinity is the sample count's.
func (h histogram) classic(out *dto.Histogram) {
	place, below := 0, uint64(0)
	for exponent := shortestClassic; exponent <= longestClassic; exponent++ {
		for index := exponent << scoreboard.Schema; place <= index-scoreboard.FirstIndex+1; place++ {
			below += h.d.Buckets[place]
		}
		out.Bucket = append(out.Bucket, &dto.Bucket{
			CumulativeCount: new(below),
			UpperBound:      new(scoreboard.UpperBound(place - 1)),
		})
	}
}

// native adds the buckets that are not empty: spans of neighbours, and each count as its
// difference from the one before. The last place counts what is longer than 128 s, which
// Quantile takes for 128 s; here it is the next bucket.
func (h histogram) native(out *dto.Histogram) {
	next, before := int32(0), int64(0) // the bucket after the last one written, and the count of that
	for place := 1; place < scoreboard.Places; place++ {
		count := int64(h.d.Buckets[place])
		if count == 0 {
			continue
		}
		index := int32(place - 1 + scoreboard.FirstIndex)
		if len(out.PositiveSpan) == 0 || index != next {
			out.PositiveSpan = append(out.PositiveSpan, &dto.BucketSpan{Offset: new(index - next), Length: new(uint32(0))})
		}
		*out.PositiveSpan[len(out.PositiveSpan)-1].Length++
		out.PositiveDelta = append(out.PositiveDelta, count-before)
		next, before = index+1, count
	}
}
