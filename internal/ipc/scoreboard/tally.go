package scoreboard

import (
	"strings"
	"sync/atomic"
)

// tallyBytes is the size of a tally; maxTallies is how many a board may have, newTallies how
// many a new one gets.
const (
	tallyBytes = lineBytes
	maxTallies = 1 << 12
	newTallies = 64
)

// tally is a counter of the service's own, by name, as it lies in memory.
type tally struct {
	claim atomic.Uint64 // see tallyFree
	count Counter
	name  [6]atomic.Uint64 // ends with its first zero
}

// claim: what the row is. Nobody gives one back.
const (
	tallyFree     = 0
	tallyClaiming = 1 // its name is being written
	tallyHeld     = 2
)

// Tally returns the counter called name, of what processes count for the whole service. Names
// have up to 47 bytes. On a board without room for it, as one of an earlier version, it is
// this process's own. Each process calls it from one goroutine.
func (b *Board) Tally(name string) *Counter {
	for _, t := range b.tallies {
		if t.claim.Load() == tallyHeld && loadText(t.name[:]) == name {
			return &t.count
		}
	}
	for _, t := range b.tallies {
		if fits(name, len(t.name)) && t.claim.CompareAndSwap(tallyFree, tallyClaiming) {
			storeText(t.name[:], name)
			t.claim.Store(tallyHeld)
			return &t.count
		}
	}
	if b.private == nil {
		b.private = map[string]*Counter{}
	}
	if b.private[name] == nil {
		b.private[name] = &Counter{}
	}
	return b.private[name]
}

// Tallies returns all of them. Two processes that began to count the same at once have a row
// each; here they are one.
func (b *Board) Tallies() map[string]uint64 {
	all := map[string]uint64{}
	for _, t := range b.tallies {
		if t.claim.Load() == tallyHeld {
			all[loadText(t.name[:])] += t.count.Load()
		}
	}
	for name, c := range b.private {
		all[name] += c.Load()
	}
	return all
}

// What workers count of the requests to the helpers of a pool.
const (
	HelperAnswered = "ok"  // that were answered
	HelperFailed   = "bad" // that were not, or with a status of 500 or more
	HelperNs       = "ns"  // nanoseconds that all of them took
)

// helperTally begins the names of such tallies.
const helperTally = "helped/"

// HelperTally is the name of the tally of what in a pool.
func HelperTally(what, pool string) string { return helperTally + what + "/" + pool }

// Helped is what was counted of the helpers of a pool.
type Helped struct{ Answered, Failed, Ns uint64 }

// Helpers returns what was counted of the helpers of each pool, by name.
func (b *Board) Helpers() map[string]Helped {
	all := map[string]Helped{}
	for name, n := range b.Tallies() {
		rest, ok := strings.CutPrefix(name, helperTally)
		what, pool, named := strings.Cut(rest, "/")
		if !ok || !named {
			continue
		}
		h := all[pool]
		switch what {
		case HelperAnswered:
			h.Answered = n
		case HelperFailed:
			h.Failed = n
		case HelperNs:
			h.Ns = n
		}
		all[pool] = h
	}
	return all
}
