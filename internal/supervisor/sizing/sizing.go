package sizing

import (
	"fmt"
	"strings"
)

// Input is what the decision rests on.
type Input struct {
	Cores      int    // that this process may use
	Available  uint64 // memory that can be had without swapping, in bytes; 0: unknown
	ModelBytes uint64 // of all model files together
	Asked      int    // workers that the operator asked for; 0: auto
	Scaled     bool   // Asked is what the pool was scaled to, not what is configured
	Limited    bool   // Available is what a limit leaves, not the machine
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
	processBytes  = 64 << 20
	perModelBytes = 3
	// reserve is the part of the available memory that is left to everything else.
	reserve = 4 // a quarter
)

// Decide returns the plan for in. Workers is at least 1.
func Decide(in Input) Plan {
	each, room := in.each(), in.room()
	now := fits(room, each)
	fit := max(now, fits(in.Running, each))
	p := Plan{Workers: in.Asked}
	if in.Asked == 0 {
		p.Workers = max(in.Cores, 1)
		if in.Available > 0 {
			p.Workers = max(min(p.Workers, fit), 1)
		}
	}
	p.Procs = max(2, (in.Cores+p.Workers-1)/p.Workers)
	p.Surge = max(min(now, p.Workers), 1)
	p.Memory = uint64(p.Workers) * each
	p.Why = why(in, p.Workers, each)
	if in.Available > 0 && p.Workers > fit {
		p.Warning = fmt.Sprintf("%s may need %s, and %s is to be had: watch memory, or set workers to %d",
			plural(p.Workers, "worker"), size(uint64(p.Workers)*each), size(room), max(fit, 1))
	}
	return p
}

// Short says what is missing where a limit leaves less than one worker is planned with, and
// nobody has asked for a number of workers all the same; empty: nothing.
func Short(in Input) (what, try string) {
	each := in.each()
	if !in.Limited || in.Asked > 0 || in.Available >= each {
		return "", ""
	}
	return fmt.Sprintf("one worker is planned with %s, and the memory limit leaves %s", size(each), size(in.Available)),
		fmt.Sprintf("raise the limit (MemoryMax=, --memory, resources.limits.memory) by %s or more, or set workers to 1 to have it tried", size(each-in.Available+1<<20))
}

// each is what one worker is planned with.
func (in Input) each() uint64 { return processBytes + perModelBytes*in.ModelBytes }

// room is the memory for workers.
func (in Input) room() uint64 { return in.Available - in.Available/reserve }

func fits(room, each uint64) int { return int(min(room/each, 1<<16)) }

func why(in Input, workers int, each uint64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", plural(workers, "worker"))
	switch {
	case in.Scaled:
		b.WriteString("as scaled")
	case in.Asked > 0:
		b.WriteString("as asked")
	case workers < in.Cores:
		b.WriteString("as many as fit into memory")
	default:
		b.WriteString("one per usable core")
	}
	fmt.Fprintf(&b, " (%s", plural(in.Cores, "usable core"))
	if in.Available > 0 {
		fmt.Fprintf(&b, ", %s available, %s planned for each", size(in.Available), size(each))
	}
	b.WriteString(")")
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}
