package bench

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Relation is how the time of several requests goes together with that of one.
type Relation string

// The relations of a number of requests that were sent at one moment.
const (
	Concurrent  Relation = "concurrent"  // all take as long as the longest
	Parallel    Relation = "parallel"    // likewise, with work of as many cores
	Sequential  Relation = "sequential"  // all take as long as their sum; the first is answered soon
	Interleaved Relation = "interleaved" // likewise; the first is answered with the last
	Waves       Relation = "waves"       // as many at once as there is room for, then as many more
)

// expectation is what an experiment shall show.
type expectation struct {
	Relation
	waves int // of Waves: how many
}

// String is e in the words of the table.
func (e expectation) String() string {
	switch e.Relation {
	case Concurrent, Parallel:
		return string(e.Relation) + ": ~ the longest"
	case Sequential, Interleaved:
		return string(e.Relation) + ": ~ the sum"
	}
	return fmt.Sprintf("%d waves", e.waves)
}

// judged is what relation n requests stood in, of which each alone takes one: the first was
// answered after first, the last after last. Of the relations that there could be, that one
// counts whose time is nearest, by its logarithm.
func (e expectation) judged(one, first, last time.Duration, n int) expectation {
	type candidate struct {
		expectation
		times float64
	}
	at := []candidate{{expectation{Relation: Concurrent}, 1}, {expectation{Relation: Sequential}, float64(n)}}
	if e.Relation == Parallel {
		at[0].Relation = Parallel
	}
	if e.Relation == Waves {
		at = append(at, candidate{e, float64(e.waves)})
	}
	ratio := math.Log(float64(last) / float64(one))
	best := slices.MinFunc(at, func(a, b candidate) int {
		return int(math.Copysign(1, math.Abs(ratio-math.Log(a.times))-math.Abs(ratio-math.Log(b.times))))
	}).expectation
	if best.Relation == Sequential && 2*first > one+last { // nearer to the last than to one alone
		best.Relation = Interleaved
	}
	return best
}
