package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
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

	Identity   *Identity `json:"identity,omitempty"`
	Parent     int       `json:"parent,omitempty"`     // whose death ends it with TERM; 0: nobody's
	Executable int       `json:"executable,omitempty"` // descriptor of the program; 0: it is at Path
	ByName     bool      `json:"by_name,omitempty"`    // execute Path while it leads to Executable

	Check *Reach `json:"check,omitempty"` // execute nothing, but say whether it could be, and this be got at
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
	// What is set of a thread (no_new_privs, the signal of the parent's death) must be of the
	// one that execs.
	runtime.LockOSThread()
	if order.Check != nil {
		return order.check()
	}
	if err := order.prepare(); err != nil {
		return fmt.Errorf("start worker %s: %w", order.Path, err)
	}
	// Whoever started the supervisor may have left descriptors open in it. Before Linux
	// 5.11 (close_range(2)) they stay.
	_ = unix.CloseRange(uint(order.Keep), math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	env := append(without(os.Environ(), "LISTEN_PID"), "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	path, err := order.program()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	return fmt.Errorf("start worker %s as %s: %w", order.Path, order.Identity, syscall.Exec(path, order.Args, env))
}

// prepare makes this process what the worker shall be.
func (o *stepOrder) prepare() error {
	unix.Umask(o.Limits.Umask)
	adjustOOMScore(o.Limits.OOMScoreAdj)
	if o.Limits.Batch {
		scheduleAsBatch()
	}
	if o.Limits.Nice > 0 {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, int(nice())+o.Limits.Nice) // else it is in the way a little
	}
	if err := o.Limits.set(); err != nil { // above the hard ones only as root
		return err
	}
	if o.Identity != nil {
		if err := o.Identity.become(); err != nil {
			return err
		}
	}
	// No program that it executes gains anything: set-user-ID bits and file capabilities do
	// nothing (PR_SET_NO_NEW_PRIVS(2const)).
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return o.followParent()
}

// followParent asks once more for TERM at the parent's death: a change of user ends that, and
// threads do not inherit it (PR_SET_PDEATHSIG(2const)).
func (o *stepOrder) followParent() error {
	if o.Parent == 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for a signal at the supervisor's death: %w", err)
	}
	if os.Getppid() != o.Parent {
		return errors.New("the supervisor has died meanwhile")
	}
	return nil
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
