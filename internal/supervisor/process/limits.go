package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits are set in the child before the worker starts.
type Limits struct {
	Umask       int      // octal, as umask(2)
	OOMScoreAdj int      // added to the supervisor's own (proc_pid_oom_score_adj(5)), so that workers die first
	Batch       bool     // schedule it as SCHED_BATCH (sched(7)): its threads preempt nobody when they wake up
	Nice        int      // added to the supervisor's own (nice(2))
	OpenFiles   uint64   // soft RLIMIT_NOFILE; 0: as much as the hard limit allows
	Resources   []Rlimit // others than inherited; nofile is stronger than OpenFiles
}

// Rlimit is one resource limit, soft and hard (setrlimit(2)).
type Rlimit struct {
	Name  string // as prlimit(1) calls it: nofile, core, as, nproc, memlock, stack
	Value uint64 // RLIM_INFINITY: none
}

// resources are the limits that may be set, by name.
var resources = map[string]int{
	"nofile": unix.RLIMIT_NOFILE, "core": unix.RLIMIT_CORE, "as": unix.RLIMIT_AS,
	"nproc": unix.RLIMIT_NPROC, "memlock": unix.RLIMIT_MEMLOCK, "stack": unix.RLIMIT_STACK,
}

// LimitError says which limit could not be set.
type LimitError struct {
	Limit Rlimit
	Hard  uint64 // the hard limit as it is
	Err   error
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("set limit %s to %s, above the hard limit of %s: %v", e.Limit.Name, limitText(e.Limit.Value), limitText(e.Hard), e.Err)
}

func (e *LimitError) Unwrap() error { return e.Err }

func limitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// set sets all limits. It goes through package syscall: only then does Go leave that of open
// files as it is at exec, instead of restoring the one that this process was started with.
func (l Limits) set() error {
	if err := limitFiles(l.OpenFiles); err != nil {
		return err
	}
	for _, r := range l.Resources {
		resource, ok := resources[r.Name]
		if !ok {
			return fmt.Errorf("set limit %s: there is none of that name", r.Name)
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			return fmt.Errorf("read limit %s: %w", r.Name, err)
		}
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: r.Value, Max: r.Value}); err != nil {
			return &LimitError{Limit: r, Hard: now.Max, Err: err}
		}
	}
	return nil
}

// limitFiles sets the soft limit of open files; 0: to the hard one.
func limitFiles(soft uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if soft > 0 {
		limit.Cur = min(soft, limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit.Cur, Max: limit.Max}); err != nil {
		return fmt.Errorf("set the limit of open files to %d: %w", limit.Cur, err)
	}
	return nil
}

// oomScoreFile is of process pid (proc_pid_oom_score_adj(5)).
func oomScoreFile(pid string) string { return "/proc/" + pid + "/oom_score_adj" }

// maxOOMScore is the largest adjustment.
const maxOOMScore = 1000

// adjustOOMScore raises this process's score. A sandbox without /proc costs only the
// preference for whom the kernel kills first.
func adjustOOMScore(add int) {
	if own, ok := oomScore("self"); ok {
		_ = os.WriteFile(oomScoreFile("self"), []byte(strconv.Itoa(min(own+add, maxOOMScore))), 0)
	}
}

// RaiseOOMScore makes the adjustment of this process that of process base and add, unless it
// is as high already, and returns by how much it is higher. Whoever is started by one that is
// raised inherits that: nothing adds up.
func RaiseOOMScore(base, add int) (above int) {
	of, known := oomScore(strconv.Itoa(base))
	own, ok := oomScore("self")
	if !known || !ok {
		return 0
	}
	want := min(of+add, maxOOMScore)
	if own < want && os.WriteFile(oomScoreFile("self"), []byte(strconv.Itoa(want)), 0) == nil {
		own = want
	}
	return own - of
}

func oomScore(pid string) (n int, ok bool) {
	data, err := os.ReadFile(oomScoreFile(pid))
	if err != nil {
		return 0, false
	}
	n, err = strconv.Atoi(strings.TrimSpace(string(data)))
	return n, err == nil
}
