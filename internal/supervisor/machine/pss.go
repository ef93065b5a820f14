package machine

import (
	"fmt"

	"github.com/shirou/gopsutil/v3/process"
)

// PSS returns a process's proportional share of resident memory in bytes
// (smaps_rollup in proc_pid_smaps(5)).
func PSS(pid int) (int64, error) {
	p := process.Process{Pid: int32(pid)}
	maps, err := p.MemoryMaps(true)
	if err != nil || maps == nil || len(*maps) == 0 {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	return int64((*maps)[0].Pss) << 10, nil
}
