package bench

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
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

// judged is what relation the requests of bars stood in, of which each alone takes one, and the
// last was answered after last.
//
// Waits are judged by the time that they took together: of the relations that there could be,
// that one counts whose time is nearest, by its logarithm. Work is judged by who had a core when,
// which does not change with what else the machine does.
func (e expectation) judged(one, last float64, bars []Bar) expectation {
	if onCore(bars) {
		switch {
		case atOnce(bars, Bar.cores) > twoCores:
			return expectation{Relation: Parallel}
		case atOnce(bars, Bar.work) < math.Sqrt2: // one at once, or two
			return expectation{Relation: Sequential}
		}
		return expectation{Relation: Interleaved}
	}
	candidates := map[float64]expectation{1: {Relation: Concurrent}, float64(len(bars)): {Relation: Sequential}}
	if e.Relation == Waves {
		candidates[float64(e.waves)] = e
	}
	ratio := math.Log(last / one)
	nearest := slices.MinFunc(slices.Sorted(maps.Keys(candidates)), func(a, b float64) int {
		return cmp.Compare(math.Abs(ratio-math.Log(a)), math.Abs(ratio-math.Log(b)))
	})
	return candidates[nearest]
}

// twoCores is from how many tasks on a core at once on, on average, there must have been two
// cores: on one there is never more than one, but for the moments between two looks. Where other
// programs take both cores most of the time it is little more.
const twoCores = 1.05

// onCore tells whether the server has said when each task had a core.
func onCore(bars []Bar) bool {
	return !slices.ContainsFunc(bars, func(b Bar) bool { return len(b.Core) == 0 })
}

// atOnce is how many tasks were in the times of spans at once, while any was, on average.
func atOnce(bars []Bar, spans func(Bar) [][2]float64) float64 {
	var all [][2]float64
	sum := 0.0
	for _, b := range bars {
		for _, s := range spans(b) {
			all, sum = append(all, s), sum+s[1]-s[0]
		}
	}
	slices.SortFunc(all, func(a, b [2]float64) int { return cmp.Compare(a[0], b[0]) })
	union, end := 0.0, 0.0
	for _, s := range all {
		union += max(s[1]-max(s[0], end), 0)
		end = max(end, s[1])
	}
	if union == 0 {
		return 0
	}
	return sum / union
}

// cores and work are when a task was on a core, and when it was begun and not ended.
func (b Bar) cores() [][2]float64 { return b.Core }
func (b Bar) work() [][2]float64  { return [][2]float64{{b.Began, b.Ended}} }
