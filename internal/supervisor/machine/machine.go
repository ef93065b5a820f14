package machine

import (
	"fmt"
	"runtime"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/mem"
)

// Resources are what may be used.
type Resources struct {
	Cores     int    // at least 1
	Available uint64 // memory that can be had without swapping, in bytes; 0: unknown
	Limited   bool   // a limit of a cgroup, not the machine, says how much that is
}

// Read reads the machine. A number that cannot be read is left at its lowest, and the
// error says which; the rest is right.
func Read() (Resources, error) {
	r := Resources{Cores: max(runtime.NumCPU(), 1)} // the affinity mask, which gopsutil does not look at
	online, err := cpu.Counts(true)
	if err != nil {
		return r, fmt.Errorf("count cores: %w", err)
	}
	r.Cores = max(min(r.Cores, online), 1)
	memory, err := mem.VirtualMemory()
	if err != nil {
		return r, fmt.Errorf("read available memory: %w", err)
	}
	r.Available = memory.Available
	l, err := readLimits("")
	if l.cores > 0 {
		r.Cores = min(r.Cores, l.cores)
	}
	if l.bound && l.memory < r.Available {
		r.Available, r.Limited = max(l.memory, 1), true // 0 would mean unknown
	}
	if err != nil {
		return r, fmt.Errorf("read the limits of cgroups: %w", err)
	}
	return r, nil
}
