package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// StepName is the name (argv[0]) under which the supervisor's program runs RunStep
// instead of itself.
const StepName = "preforkd-exec"

// stepOrder is what the child is told, as its only argument.
type stepOrder struct {
	Path   string   `json:"path"`
	Args   []string `json:"args"`
	Keep   int      `json:"keep"` // descriptors below this are the worker's
	Limits Limits   `json:"limits"`

	Executable int  `json:"executable,omitempty"` // descriptor of the program; 0: it is at Path
	ByName     bool `json:"by_name,omitempty"`    // execute Path while it leads to Executable
}

// IsStep tells whether this process was started by Start and must call RunStep before
// anything else.
func IsStep(args []string) bool { return len(args) == 2 && args[0] == StepName }

// RunStep prepares this process as args say and execs the worker. It returns only
// when that cannot be done.
func RunStep(args []string) error {
	var order stepOrder
	if err := json.Unmarshal([]byte(args[1]), &order); err != nil {
		return fmt.Errorf("read the order to start a worker: %w", err)
	}
	unix.Umask(order.Limits.Umask)
	adjustOOMScore(order.Limits.OOMScoreAdj)
	if err := limitFiles(order.Limits.OpenFiles); err != nil {
		return err
	}
	if order.Limits.Batch {
		scheduleAsBatch()
	}
	// Whoever started the supervisor may have left descriptors open in it. Before Linux
	// 5.11 (close_range(2)) they stay.
	_ = unix.CloseRange(uint(order.Keep), math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	env := append(without(os.Environ(), "LISTEN_PID"), "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	path, err := order.program()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	return fmt.Errorf("start worker %s: %w", order.Path, syscall.Exec(path, order.Args, env))
}

// program returns by which path to execute the worker. execveat(2) would need none, but
// only syscall.Exec keeps Go's runtime from making a thread meanwhile, which the kernel
// refuses, which would end this process.
func (o stepOrder) program() (string, error) {
	if o.Executable > 0 && !(o.ByName && leadsTo(o.Path, o.Executable)) {
		unix.CloseOnExec(o.Executable) // close_range is newer than descriptors are
		return fmt.Sprintf("/proc/self/fd/%d", o.Executable), nil
	}
	path, err := exec.LookPath(o.Path)
	if errors.Is(err, exec.ErrDot) {
		err = nil
	}
	return path, err
}

// leadsTo tells whether path is the file behind fd.
func leadsTo(path string, fd int) bool {
	var named, open unix.Stat_t
	return unix.Stat(path, &named) == nil && unix.Fstat(fd, &open) == nil && named.Dev == open.Dev && named.Ino == open.Ino
}

func without(env []string, key string) []string {
	var kept []string
	for _, e := range env {
		if !strings.HasPrefix(e, key+"=") {
			kept = append(kept, e)
		}
	}
	return kept
}

// adjustOOMScore raises this process's score. A sandbox without /proc costs only the
// preference for whom the kernel kills first.
func adjustOOMScore(add int) {
	const file = "/proc/self/oom_score_adj"
	data, err := os.ReadFile(file)
	if err != nil {
		return
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return
	}
	_ = os.WriteFile(file, []byte(strconv.Itoa(min(own+add, 1000))), 0)
}

// scheduleAsBatch asks the kernel not to let this process's threads preempt others when
// they wake up (SCHED_BATCH in sched(7)): workers are as many as cores, and every such
// preemption costs two context switches. Where a sandbox forbids it, it costs only that.
func scheduleAsBatch() {
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: nice()}, 0)
}

// nice returns this process's nice value, which sched_setattr(2) would otherwise set to 0.
func nice() int32 {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return 0
	}
	return int32(20 - n) // the system call returns 20 - nice (getpriority(2), notes)
}

// limitFiles sets the soft limit through package syscall: only then does Go leave it as it is at
// exec, instead of restoring the limit that this process was started with.
func limitFiles(soft uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if soft > 0 {
		limit.Cur = min(soft, limit.Max)
	}
	var set syscall.Rlimit
	set.Cur, set.Max = limit.Cur, limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &set); err != nil {
		return fmt.Errorf("set the limit of open files to %d: %w", limit.Cur, err)
	}
	return nil
}
