package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/mem"
	"golang.org/x/sys/unix"
)

// Resources are what may be used.
type Resources struct {
	Bounds
	CoresBy   string // what decides about Cores: "the machine", "the CPU affinity", or a cgroup's file
	MemoryBy  string // what decides about Memory: "the machine", or a cgroup's file
	Available uint64 // memory that can be had without swapping, in bytes; 0: unknown
	Limited   bool   // a limit of a cgroup, not the machine, says how much that is
}

// Bounds are the part of Resources that changes only when somebody changes it.
type Bounds struct {
	Cores  float64 // more than 0; a quota may leave a part of one
	Memory uint64  // in all, in bytes; 0: unknown
}

// TheMachine decides where nothing else does.
const TheMachine = "the machine"

// Read reads the machine. A number that cannot be read is left at its lowest, and the
// error says which; the rest is right.
func Read() (Resources, error) {
	r := Resources{CoresBy: TheMachine}
	var errs []error
	online, err := cpu.Counts(true)
	if err != nil {
		errs = append(errs, fmt.Errorf("count cores: %w", err))
	}
	if online < 1 {
		online = runtime.NumCPU()
	}
	r.Cores = float64(online)
	affinity, err := affinityOf(os.Getpid())
	errs = append(errs, err)
	if memory, err := mem.VirtualMemory(); err == nil {
		r.Memory, r.MemoryBy, r.Available = memory.Total, TheMachine, memory.Available
	} else {
		errs = append(errs, fmt.Errorf("read available memory: %w", err))
	}
	l, err := readLimits("")
	if err != nil {
		errs = append(errs, fmt.Errorf("read the limits of cgroups: %w", err))
	}
	r.narrow(l, affinity)
	return r, errors.Join(errs...)
}

// narrow takes l and the CPU affinity, nil if it is not known, into account.
func (r *Resources) narrow(l limits, affinity cpuSet) {
	if n := affinity.count(); n > 0 && float64(n) < r.Cores {
		r.Cores, r.CoresBy = float64(n), "the CPU affinity"
	}
	if l.cpus != nil {
		n := l.cpus.count()
		if both := l.cpus.and(affinity).count(); both > 0 {
			n = both // else the file tells of other CPUs than the kernel: what it does counts
		}
		if float64(n) < r.Cores {
			r.Cores, r.CoresBy = float64(n), l.cpusBy
		}
	}
	if l.cores > 0 && l.cores < r.Cores {
		r.Cores, r.CoresBy = l.cores, l.coresBy
	}
	if l.memoryBy == "" {
		return
	}
	if r.Memory == 0 || l.memory < r.Memory {
		r.Memory, r.MemoryBy = max(l.memory, 1), l.memoryBy // 0 would mean unknown
	}
	if r.Available == 0 || l.room < r.Available {
		r.Available, r.Limited = max(l.room, 1), true
	}
}

// affinityOf returns the CPUs on which a process may run. The kernel has taken cpusets into
// account, and changes it when they change, unlike runtime.NumCPU, which looks once.
func affinityOf(pid int) (cpuSet, error) {
	var mask unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &mask); err != nil {
		return nil, fmt.Errorf("read the CPU affinity: %w", err)
	}
	set := make(cpuSet, len(mask)*64)
	for i := range set {
		set[i] = mask.IsSet(i)
	}
	return set, nil
}
