package sizing

import (
	"fmt"
	"math"
	"strings"
)

// Input is what the decision rests on.
type Input struct {
	Cores      float64 // that this process may use; a quota may leave a part of one
	Memory     uint64  // that the machine, or its tightest limit, has in all; 0: unknown
	Available  uint64  // memory that can be had without swapping, in bytes; 0: unknown
	ModelBytes uint64  // of all model files together, less the weights that workers share
	// SharedBytes is the size of the weights that all workers map from the same files.
	SharedBytes uint64
	// Private and Shared are what a worker was measured with: memory of its own, and memory
	// that all workers have in common. Without Private a worker is planned from ModelBytes.
	Private, Shared uint64
	Asked           int  // workers that the operator asked for; 0: auto
	Scaled          bool // Asked is what the pool was scaled to, not what is configured
	Limited         bool // Available is what a limit leaves, not the machine
	// Foreign says that the workers are a program of which nothing is known: no number that
	// was asked for is reduced.
	Foreign bool
	// Running is what the workers are planned with that run now and will leave, in bytes.
	// Available lacks what they hold, so that a reload must not take it for gone.
	Running uint64
}

// Plan is the decision.
type Plan struct {
	Workers int
	// Procs is GOMAXPROCS of each worker: at least 2, also where a worker's share is
	// one core. With 1, a native call of some microseconds starves the network poller
	// (p50 of 2.5 ms instead of 0.05 ms).
	Procs int
	// GoMemory is GOMEMLIMIT of each worker, in bytes: its share of the memory less what its
	// models hold, which Go's runtime does not see. 0: memory is unknown.
	GoMemory uint64
	// QueueBytes bounds the bodies that wait in a worker: they are half of GoMemory at most.
	// 0: memory is unknown.
	QueueBytes uint64
	// Threads is how many blocking calls a worker should run at once.
	Threads int
	// Surge is how many more workers fit into the memory that is available now, at least
	// 1 and at most Workers. It means something where the workers that run are counted
	// in what is not available: during a reload.
	Surge int
	// Memory is what the workers are planned with together, in bytes.
	Memory uint64
	Why    string // one line for the operator
	// Warning is set when the operator's number does not fit the machine.
	Warning string
}

// What a worker is planned with before any was measured: the process with its engine,
// and per byte of model file the graph and the weights that the engine keeps beside
// the file it read.
const (
	ProcessBytes  = 64 << 20
	perModelBytes = 3
	// reserve is the part of the available memory that is left to everything else.
	reserve = 4 // a quarter
	// leastGoMemory is the smallest GOMEMLIMIT: below it the collector would run all the time.
	leastGoMemory = 64 << 20
)

// Decide returns the plan for in. Workers is at least 1, and at most MaxWorkers unless more
// were asked for.
func Decide(in Input) Plan {
	n, room := in.Need(), Room(in.Available)
	fit := in.fit()
	p := Plan{Workers: in.Asked}
	if in.Asked == 0 {
		p.Workers = in.wanted()
		if in.Available > 0 {
			p.Workers = max(min(p.Workers, fit), 1)
		}
	}
	p.Warning = in.warning(fit)
	if in.reduces() {
		p.Workers = in.reduced()
	}
	p.Procs = max(2, int(math.Ceil(min(in.Cores, 1<<16)/float64(p.Workers))))
	p.Threads = Threads(in.Cores)
	p.Surge = max(min(fits(room, n), p.Workers), 1)
	p.Memory = n.Of(p.Workers)
	if in.Available > 0 {
		p.GoMemory = goMemory(max(room, in.Running), n, p.Workers)
		p.QueueBytes = p.GoMemory / 2
	}
	p.Why = why(in, p.Workers, n)
	return p
}

// wanted is how many workers cores are for: one a core, and one for a part of one, which
// would lie idle.
func (in Input) wanted() int {
	if !(in.Cores > 1) {
		return 1
	}
	return int(math.Ceil(min(in.Cores, MaxWorkers)))
}

// fit is how many workers the memory carries: beside one more and a second copy of what they
// share, as a reload to other models has it.
func (in Input) fit() int {
	return in.fitOf(in.Need())
}

func (in Input) fitOf(n Need) int {
	return max(Fits(Room(in.Available), n), fits(in.Running, n))
}

// reduces tells whether so many workers were asked for that they would use more than there is,
// even if each needs no more than the least: the kernel would kill some of them.
func (in Input) reduces() bool {
	return in.Asked > 1 && !in.Foreign && in.Available > 0 && in.Least().Of(in.Asked) > max(in.Available, in.Running)
}

// reduced is what becomes of such a number.
func (in Input) reduced() int { return max(min(in.fitOf(in.Least()), in.Asked), 1) }

func (in Input) warning(fit int) string {
	n := in.Need()
	switch {
	case in.Available == 0 || in.Asked <= fit && (in.Asked > 0 || fit > 0):
		return ""
	case in.reduces():
		return fmt.Sprintf("%s need at least %s, and there is %s: reduced to %d, which fit beside a reload; raise the limit to have more",
			plural(in.Asked, "worker"), Size(in.Least().Of(in.Asked)), Size(in.Available), in.reduced())
	case in.Asked == 0 || in.Asked == 1:
		return fmt.Sprintf("1 worker may need %s, and a second one beside it during a reload, and %s is to be had: watch memory, or raise the limit",
			Size(n.Of(1)), Size(Room(in.Available)))
	}
	return fmt.Sprintf("%s may need %s, and one more during a reload, and %s is to be had: watch memory, or set workers to %d",
		plural(in.Asked, "worker"), Size(n.Of(in.Asked)), Size(Room(in.Available)), max(fit, 1))
}

// goMemory is the share of a worker, with one more beside it, less what its models hold.
func goMemory(room uint64, n Need, workers int) uint64 {
	share := (room - min(room, n.Shared)) / uint64(workers+1)
	models := n.Private - min(n.Private, ProcessBytes)
	return max(share-min(share, models), leastGoMemory)
}

// Share is what becomes of a worker's GOMEMLIMIT when a pool of from workers has to: the whole is
// shared by more or fewer, and one more during a reload.
func Share(goMemory uint64, from, to int) uint64 {
	if goMemory == 0 {
		return 0
	}
	share := float64(goMemory) * float64(from+1) / float64(to+1)
	return max(uint64(min(share, 1<<60)), leastGoMemory)
}

// Threads is how many blocking calls a worker of a machine of so many cores should run at
// once: what Python's ThreadPoolExecutor takes since 3.8, and AnyIO's 40 as the upper bound.
func Threads(cores float64) int {
	return min(int(math.Ceil(max(min(cores, 64), 1)))+4, 40)
}

// Short says what is missing where there is less than one worker is planned with, and nobody
// has asked for a number of workers all the same; empty: nothing. Without a limit only the
// machine itself is too small: others may give memory back.
func Short(in Input) (what, try string) {
	one := in.Need().Of(1)
	arithmetic := Size(one)
	switch {
	case in.Private > 0 || in.ModelBytes == 0 && in.SharedBytes == 0:
	case in.SharedBytes == 0:
		arithmetic = fmt.Sprintf("%s (%s, and %d times the %s of its model files)", Size(one), Size(ProcessBytes), perModelBytes, Size(in.ModelBytes))
	default:
		arithmetic = fmt.Sprintf("%s (%s, %d times the %s of its model files, and %s of prepared weights)",
			Size(one), Size(ProcessBytes), perModelBytes, Size(in.ModelBytes), Size(in.SharedBytes))
	}
	switch {
	case in.Asked > 0:
	case in.Limited && in.Available < one:
		return fmt.Sprintf("one worker is planned with %s, and the memory limit leaves %s", arithmetic, Size(in.Available)),
			fmt.Sprintf("raise the limit (MemoryMax=, --memory, resources.limits.memory) by %s or more, or set workers to 1 to have it tried", Size(one-in.Available+1<<20))
	case in.Memory > 0 && in.Memory < one:
		return fmt.Sprintf("one worker is planned with %s, and the machine has %s", arithmetic, Size(in.Memory)),
			"serve fewer or smaller models, or set workers to 1 to have it tried"
	}
	return "", ""
}

func why(in Input, workers int, n Need) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", plural(workers, "worker"))
	switch {
	case in.Asked > 0 && workers < in.Asked:
		fmt.Fprintf(&b, "as many of %d as fit into memory", in.Asked)
	case in.Scaled:
		b.WriteString("as scaled")
	case in.Asked > 0:
		b.WriteString("as asked")
	case workers < in.wanted():
		b.WriteString("as many as fit into memory")
	default:
		b.WriteString("one per usable core")
	}
	fmt.Fprintf(&b, " (%s", Cores(in.Cores))
	if in.Available > 0 {
		fmt.Fprintf(&b, ", %s available, %s planned for each", Size(in.Available), Size(n.Private))
		if n.Shared > 0 {
			fmt.Fprintf(&b, " beside %s shared", Size(n.Shared))
		}
	}
	b.WriteString(")")
	return b.String()
}
