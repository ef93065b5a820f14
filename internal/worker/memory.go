package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// memoryEvery is how often a worker says how much memory it has. The kernel walks its page
// tables for the answer, some microseconds a megabyte, which no request waits for.
const memoryEvery = 5 * time.Second

// keepMemory writes the PSS of this process into its row until ctx ends, after what large
// requests have needed is given back.
func (w *worker) keepMemory(ctx context.Context) {
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.api.GiveBack()
			w.measureMemory()
		case <-ctx.Done():
			return
		}
	}
}

// measureMemory writes it once. What cannot be read is said once, and is no error: there
// are kernels without smaps_rollup.
func (w *worker) measureMemory() {
	data, err := os.ReadFile("/proc/self/smaps_rollup")
	if err == nil {
		var n int64
		if n, err = pss(data); err == nil {
			w.row.PSS.Set(n)
			return
		}
	}
	if !w.memoryUnknown {
		w.memoryUnknown = true
		w.log.Warn("memory of this worker not known", "err", err)
	}
}

// pss returns what the line "Pss:" of smaps_rollup says (proc_pid_smaps(5)), in bytes.
func pss(rollup []byte) (int64, error) {
	for line := range bytes.Lines(rollup) {
		rest, ok := bytes.CutPrefix(line, []byte("Pss:"))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) != 2 || string(fields[1]) != "kB" {
			return 0, fmt.Errorf("smaps_rollup: %q is no number of kB", bytes.TrimSpace(line))
		}
		n, err := strconv.ParseInt(string(fields[0]), 10, 52)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("smaps_rollup: %q is no number of kB", bytes.TrimSpace(line))
		}
		return n << 10, nil
	}
	return 0, errors.New("smaps_rollup has no line that begins with Pss")
}
