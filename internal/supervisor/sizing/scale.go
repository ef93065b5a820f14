package sizing

import "fmt"

// MaxWorkers is how many workers a pool has at most.
const MaxWorkers = 1024

// Change is how an operator writes another size of a pool: as the number, or as how many
// more or fewer.
type Change struct {
	Workers  int
	Relative bool
}

// Of returns the size that c makes of a pool of size now. It may be out of range.
func (c Change) Of(now int) int {
	if c.Relative {
		return now + c.Workers
	}
	return c.Workers
}

// Steps returns the size that signals make of a pool of size now, one after the other:
// each is one more or one fewer. One that would leave the range changes nothing.
func Steps(now int, steps []int) int {
	for _, step := range steps {
		if next := now + step; next >= 1 && next <= MaxWorkers {
			now = next
		}
	}
	return now
}

// Refuse says why a pool that runs now workers cannot have to, or nothing: there is no
// such size, or memory does not carry the new ones. In is the machine as it is, with the
// workers that run; its Asked does not count.
func Refuse(in Input, now, to int) (why string, memory bool) {
	if to < 1 || to > MaxWorkers {
		return fmt.Sprintf("%d is no size; a pool has from 1 to %d workers", to, MaxWorkers), false
	}
	each, room := in.Need().Private, Room(in.Available)
	fit := fits(room, in.Need()) // what they share is there already, and counts as free: the kernel could give it up
	if more := to - now; more > 0 && in.Available > 0 && more > fit {
		return fmt.Sprintf("%s more may need %s (%s each), and %s is to be had (%s available, a quarter stays free): %d more fit",
			plural(more, "worker"), Size(uint64(more)*each), Size(each), Size(room), Size(in.Available), fit), true
	}
	return "", false
}

// Models are models that are to be loaded: the bytes of those of which each worker has a copy,
// and of those whose weights all share.
type Models struct{ Copied, Shared uint64 }

// What a model whose weights are shared takes, by the bytes of its files, however many workers
// there are: preparing it took 3.9 times as much (250 MiB for 64), in a process that ends before
// any other loads it; then there is the file of weights, up to twice as large, and what a
// process packs while it loads.
const (
	preparedTimes = 4
	sharedTimes   = 3
)

// RefuseModels says why models cannot be loaded beside what so many workers have loaded
// already, or nothing. Before that one more process tries them.
func RefuseModels(in Input, workers int, m Models) string {
	copied := perModelBytes * min(m.Copied, 1<<50)
	need := max(uint64(workers)*copied, ProcessBytes+copied)
	how := "in " + plural(workers, "worker")
	if m.Shared > 0 {
		shared := min(m.Shared, 1<<50)
		need += max(sharedTimes*shared, preparedTimes*shared-min(preparedTimes*shared, ProcessBytes))
		if how += ", which share its weights"; m.Copied > 0 {
			how = "in " + plural(workers, "worker") + ", which share a part of its weights"
		}
	}
	if in.Available == 0 || need <= Room(in.Available) {
		return ""
	}
	return fmt.Sprintf("it may need %s %s, and %s is to be had (%s available, a quarter stays free)", Size(need), how, Size(Room(in.Available)), Size(in.Available))
}
