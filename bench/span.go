package main

import (
	"slices"
	"time"

	"preforkd/internal/load"
)

// span is a part of a run, as times since the measured time began.
type span struct {
	From time.Duration `json:"from_ns"`
	To   time.Duration `json:"to_ns"`
}

func (s span) long() time.Duration { return s.To - s.From }

// meets tells whether a request that was due at from and answered at to had any part in s.
func (s span) meets(from, to time.Duration) bool { return from < s.To && to > s.From }

// split divides answers into those whose requests met one of the spans, and the others.
func split(trace []load.Point, spans []span) (inside, outside []time.Duration) {
	for _, p := range trace {
		if slices.ContainsFunc(spans, func(s span) bool { return s.meets(p.At-p.Took, p.At) }) {
			inside = append(inside, p.Took)
		} else {
			outside = append(outside, p.Took)
		}
	}
	return inside, outside
}

// quantile returns the smallest of values that at least the share q of them do not
// exceed; 0 of none. It sorts values.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	rank := int(q*float64(len(values)) + 0.9999999) // rounded up
	return values[min(max(rank, 1), len(values))-1]
}

// longestGap returns the longest time within s in which no answer came, to any client.
// The ends of s end a gap as an answer does. The trace is in order.
func longestGap(trace []load.Point, s span) time.Duration {
	last, longest := s.From, time.Duration(0)
	for _, p := range trace {
		if p.At <= s.From {
			continue
		}
		if p.At >= s.To {
			break
		}
		longest = max(longest, p.At-last)
		last = p.At
	}
	return max(longest, s.To-last)
}

// bin is what happened in one slice of a run.
type bin struct {
	Answers  int           `json:"answers"`
	Failures int           `json:"failures"`
	Worst    time.Duration `json:"worst_ns"` // the longest latency of requests that were due in it
}

// bins cuts the first until of a run into slices of the same width. Answers and failures
// count where they came, latencies where their requests were due.
func bins(trace []load.Point, failures []time.Duration, width, until time.Duration) []bin {
	all := make([]bin, (until+width-1)/width)
	at := func(t time.Duration) *bin {
		if i := int(t / width); t >= 0 && i < len(all) {
			return &all[i]
		}
		return new(bin) // outside: counted nowhere
	}
	for _, p := range trace {
		at(p.At).Answers++
		due := at(p.At - p.Took)
		due.Worst = max(due.Worst, p.Took)
	}
	for _, t := range failures {
		at(t).Failures++
	}
	return all
}
