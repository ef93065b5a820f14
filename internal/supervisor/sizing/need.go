package sizing

import (
	"fmt"
	"strconv"
)

// Need is the memory of workers: of each its own, and what all have in common.
type Need struct{ Private, Shared uint64 }

// Need is what the workers of in are planned with: as measured, else from their models.
func (in Input) Need() Need {
	if in.Private > 0 {
		return Need{Private: in.Private, Shared: in.Shared}
	}
	return Need{Private: ProcessBytes + perModelBytes*min(in.ModelBytes, 1<<56), Shared: min(in.SharedBytes, 1<<56)}
}

// Least is what they need at least: as measured, else the process and one copy of the weights,
// each or, of those that are shared, together. An operator who asks for a number may know better than an estimate, not than this.
func (in Input) Least() Need {
	if in.Private > 0 {
		return in.Need()
	}
	return Need{Private: ProcessBytes + min(in.ModelBytes, 1<<56), Shared: min(in.SharedBytes, 1<<56)}
}

// Of is what so many workers need together.
func (n Need) Of(workers int) uint64 { return n.Shared + uint64(workers)*n.Private }

// Peak is what they need at most: during a reload to other models, which has a second copy of
// what is shared, and so many workers more.
func (n Need) Peak(workers, surge int) uint64 { return n.Of(workers+surge) + n.Shared }

// Room is the memory for workers: the rest is left to everything else.
func Room(available uint64) uint64 { return available - available/reserve }

// Fits is how many workers room carries beside a reload with a surge of one.
func Fits(room uint64, n Need) int {
	rest := room - min(room, 2*n.Shared+n.Private)
	return int(min(rest/max(n.Private, 1), 1<<16))
}

// fits is how many workers room carries.
func fits(room uint64, n Need) int {
	return int(min((room-min(room, n.Shared))/max(n.Private, 1), 1<<16))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Cores writes a number of cores as "2.5 usable cores".
func Cores(n float64) string {
	if n == 1 {
		return "1 usable core"
	}
	return strconv.FormatFloat(n, 'f', -1, 64) + " usable cores"
}

// Size writes a number of bytes.
func Size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}
