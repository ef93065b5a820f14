package scoreboard

import "sync/atomic"

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
