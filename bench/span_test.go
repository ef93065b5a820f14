package main

import (
	"slices"
	"testing"
	"time"

	"preforkd/internal/load"
)

const ms = time.Millisecond

// answered makes a trace of answers at these times, each after latency.
func answered(latency time.Duration, at ...time.Duration) (trace []load.Point) {
	for _, t := range at {
		trace = append(trace, load.Point{At: t, Took: latency})
	}
	return trace
}

func TestSplit(t *testing.T) {
	spans := []span{{10 * ms, 20 * ms}, {30 * ms, 40 * ms}}
	for _, c := range []struct {
		from, to time.Duration
		in       bool
	}{
		{1 * ms, 2 * ms, false},
		{9 * ms, 10 * ms, false},
		{9 * ms, 11 * ms, true},  // delayed into the span
		{19 * ms, 25 * ms, true}, // due in the span
		{20 * ms, 25 * ms, false},
		{5 * ms, 50 * ms, true}, // over both
		{12 * ms, 13 * ms, true},
		{40 * ms, 41 * ms, false},
	} {
		in, out := split(answered(c.to-c.from, c.to), spans)
		if (len(in) == 1) != c.in || len(in)+len(out) != 1 {
			t.Errorf("%v to %v: %d inside, %d outside", c.from, c.to, len(in), len(out))
		}
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := 100; i >= 1; i-- {
		hundred = append(hundred, time.Duration(i))
	}
	for _, c := range []struct {
		values []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.99, 0},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{7}, 0, 7},
		{[]time.Duration{3, 1, 2}, 0.5, 2},
		{[]time.Duration{4, 3, 2, 1}, 0.5, 2},
		{hundred, 0.99, 99},
		{hundred, 0.991, 100},
		{hundred, 1, 100},
	} {
		if got := quantile(slices.Clone(c.values), c.q); got != c.want {
			t.Errorf("%v of %d values: %d, want %d", c.q, len(c.values), got, c.want)
		}
	}
}

func TestLongestGap(t *testing.T) {
	trace := answered(ms, 1*ms, 2*ms, 5*ms, 6*ms, 20*ms)
	for _, c := range []struct {
		s    span
		want time.Duration
	}{
		{span{0, 7 * ms}, 3 * ms},
		{span{0, 10 * ms}, 4 * ms},        // 6 to the end
		{span{10 * ms, 20 * ms}, 10 * ms}, // none within
		{span{7 * ms, 21 * ms}, 13 * ms},  // from the beginning to 20
		{span{5 * ms, 20 * ms}, 14 * ms},
	} {
		if got := longestGap(trace, c.s); got != c.want {
			t.Errorf("%v: %v, want %v", c.s, got, c.want)
		}
	}
	if got := longestGap(nil, span{2 * ms, 5 * ms}); got != 3*ms {
		t.Errorf("without answers: %v", got)
	}
}

func TestBins(t *testing.T) {
	trace := append(answered(3*ms, 0, 9*ms, 10*ms), load.Point{At: 21 * ms, Took: 8 * ms}, load.Point{At: 99 * ms, Took: 98 * ms})
	got := bins(trace, []time.Duration{-ms, 10 * ms, 24 * ms, 30 * ms}, 10*ms, 25*ms)
	want := []bin{{Answers: 2, Worst: 98 * ms}, {Answers: 1, Failures: 1, Worst: 8 * ms}, {Answers: 1, Failures: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
