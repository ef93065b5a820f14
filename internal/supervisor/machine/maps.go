package machine

import (
	"fmt"
	"strings"

	"github.com/shirou/gopsutil/v3/process"
)

// Memory is a process's memory by what another process of the same program would share of it,
// in bytes.
type Memory struct {
	Own    uint64 // anonymous, and pages of files that it has written to
	Common uint64 // pages of programs, libraries and shared memory
	Within uint64 // pages of files below the directory that was asked for
}

// MemoryOf reads the mappings of process pid (smaps in proc_pid_smaps(5)). What is not anonymous is
// in the page cache, once for all who map it, so one process tells what several would share. The
// words private and dirty tell less: they say whether another process has mapped a page by now,
// and whether the file has reached the disk. dir is absolute.
func MemoryOf(pid int, dir string) (m Memory, err error) {
	p := process.Process{Pid: int32(pid)}
	maps, err := p.MemoryMaps(false)
	if err != nil || maps == nil || len(*maps) == 0 {
		return m, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	dir = strings.TrimSuffix(dir, "/") + "/"
	for _, a := range *maps {
		m.Own += (a.Anonymous + a.Swap) << 10
		mapped := (a.Rss - min(a.Anonymous, a.Rss)) << 10
		if strings.HasPrefix(a.Path, dir) {
			m.Within += mapped
		} else {
			m.Common += mapped
		}
	}
	return m, nil
}

// CPUSeconds returns the time of cores that process pid has used.
func CPUSeconds(pid int) (float64, error) {
	p := process.Process{Pid: int32(pid)}
	t, err := p.Times()
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	return t.User + t.System, nil
}
