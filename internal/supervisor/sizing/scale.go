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
	each := in.each()
	if more := to - now; more > 0 && in.Available > 0 && more > fits(in.room(), each) {
		return fmt.Sprintf("%s more may need %s (%s each), and %s is to be had (%s available, a quarter stays free): %d more fit",
			plural(more, "worker"), size(uint64(more)*each), size(each), size(in.room()), size(in.Available), fits(in.room(), each)), true
	}
	return "", false
}

// RefuseModels says why models of so many bytes cannot be loaded beside what so many workers
// have loaded already, or nothing. Before that one more process tries them.
func RefuseModels(in Input, workers int, bytes uint64) string {
	need := max(uint64(workers)*perModelBytes*bytes, processBytes+perModelBytes*bytes)
	if in.Available == 0 || need <= in.room() {
		return ""
	}
	return fmt.Sprintf("it may need %s in %s, and %s is to be had (%s available, a quarter stays free)",
		size(need), plural(workers, "worker"), size(in.room()), size(in.Available))
}
