package process

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec says what to start.
type Spec struct {
	Path string   // the program
	Args []string // with the program's name first
	Env  []string
	Dir  string // the working directory; empty: /
	// Group has KILL sent, when the process has ended, to what it leaves in its process group,
	// and TERM to the process when this one dies: for programs that do not watch us.
	Group bool
	// Executable, if not nil, is executed in place of what lies at Path by now. With ByName
	// it is not while Path still leads to it: the kernel names a process after the path that
	// it was started by, and only a program that knows of it can set its name right.
	Executable *os.File
	ByName     bool
	// Descriptors are handed over from 3 on, in this order. They stay the caller's.
	Descriptors []int
	Limits      Limits
	// Identity is whom it runs as; nil: as we do.
	Identity *Identity
	// Output, if it is not two zeros, is a pipe for what the process writes, its reading end
	// first. Both stay the caller's: it outlives the process, and this one.
	Output [2]int
	// Line is called for each line of output of the process pid, by one goroutine, in order,
	// perhaps before Start has returned.
	Line func(pid int, line string)
}

// Process is a running or ended worker process.
type Process struct {
	PID   int
	group bool                              // see Spec.Group
	watch func() (syscall.WaitStatus, bool) // of an adopted one: how it ended, if that is known
	pidfd int                               // of an adopted one
	done  chan struct{}
	exit  Exit

	mu     sync.Mutex // guards reaped, so that no signal reaches a later process of the same pid
	reaped bool
}

// Exit is how a process ended.
type Exit struct {
	Status syscall.WaitStatus
	// OOM says that the kernel killed it for want of memory. wait4(2) does not tell; the
	// caller may find out and set it.
	OOM bool
	// Unknown says that nobody knows how it ended: another process had started it.
	Unknown bool
}

// Killed tells whether KILL ended the process, whoever sent it.
func (e Exit) Killed() bool { return e.Status.Signaled() && e.Status.Signal() == syscall.SIGKILL }

// String describes the end in words, as "killed by signal 11 (segmentation fault)".
func (e Exit) String() string {
	switch {
	case e.Unknown:
		return "exit status unknown"
	case e.Killed() && e.OOM:
		return "killed by signal 9; the memory cgroup counts an OOM kill"
	case e.Killed(): // its name says nothing more
		return "killed by signal 9"
	case e.Status.Signaled() && e.Status.CoreDump():
		return fmt.Sprintf("killed by signal %d (%v), core dumped", e.Status.Signal(), e.Status.Signal())
	case e.Status.Signaled():
		return fmt.Sprintf("killed by signal %d (%v)", e.Status.Signal(), e.Status.Signal())
	default:
		return "exit status " + strconv.Itoa(e.Status.ExitStatus())
	}
}

// Start starts the process in a session of its own, with /dev/null as input.
func Start(spec Spec) (*Process, error) {
	return spec.start(spec.order())
}

// order is what the child is told.
func (s *Spec) order() stepOrder {
	o := stepOrder{Path: s.Path, Args: s.Args, Keep: 3 + len(s.Descriptors), ByName: s.ByName, Limits: s.Limits, Identity: s.Identity}
	if s.Executable != nil {
		o.Executable = o.Keep
	}
	if s.Group {
		o.Parent = os.Getpid()
	}
	return o
}

// start starts the child with that order.
func (s *Spec) start(order stepOrder) (*Process, error) {
	step, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer unix.Close(null)
	pipe, err := s.pipe()
	if err != nil {
		return nil, err
	}
	defer unix.Close(pipe[1])
	files := []uintptr{uintptr(null), uintptr(pipe[1]), uintptr(pipe[1])}
	for _, fd := range s.Descriptors {
		files = append(files, uintptr(fd))
	}
	if s.Executable != nil {
		files = append(files, s.Executable.Fd())
	}
	pidfd := -1
	sys := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if s.Group {
		sys.Pdeathsig = syscall.SIGTERM // of the thread that starts it; Go's live as long as the process
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{StepName, string(step)}, &syscall.ProcAttr{
		Dir:   dir,
		Env:   s.Env,
		Files: files,
		Sys:   sys,
	})
	if err != nil {
		unix.Close(pipe[0])
		return nil, fmt.Errorf("start %s: %w", s.Path, err)
	}
	p := &Process{PID: pid, group: s.Group, done: make(chan struct{})}
	go p.run(pidfd, newOutput(pipe[0], func(line string) { s.Line(pid, line) }))
	return p, nil
}

// Pipe makes a pipe for the output of workers, one after the other.
func Pipe() (p [2]int, err error) {
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return p, fmt.Errorf("make the output pipe: %w", err)
	}
	// A burst must not make the worker wait for us. Beyond the user's quota
	// (pipe(7), pipe-user-pages-soft) the default of 64 KiB remains.
	_, _ = unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, 1<<20)
	return p, nil
}

// pipe returns two descriptors of the process's own.
func (s *Spec) pipe() (p [2]int, err error) {
	if s.Output == [2]int{} {
		return Pipe()
	}
	for i, fd := range s.Output {
		if p[i], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			if i == 1 {
				unix.Close(p[0])
			}
			return p, fmt.Errorf("take the output pipe: %w", err)
		}
	}
	return p, nil
}

// Done is closed when the process has ended, has been reaped and all its output has
// been delivered.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended. It may be called once Done is closed.
func (p *Process) Exit() Exit { return p.exit }

// Signal sends sig; to an ended process it does nothing. KILL goes to its whole process
// group, which is its own: a program that is killed cannot end what it has started.
func (p *Process) Signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	if p.watch != nil {
		_ = unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
		return
	}
	to := p.PID
	if sig == syscall.SIGKILL {
		to = -p.PID
	}
	_ = syscall.Kill(to, sig) // ESRCH cannot be: we have not reaped it
}

// run waits for the process, then for its output.
func (p *Process) run(pidfd int, out *output) {
	defer close(p.done)
	go out.read()
	p.await(pidfd)
	out.finish()
}

// await reaps the process. The pidfd becomes readable when it has ended
// (pidfd_open(2)): no thread waits, whatever the number of workers.
func (p *Process) await(pidfd int) {
	if f := pollable(pidfd, "pidfd"); f != nil {
		defer f.Close()
		if raw, err := f.SyscallConn(); err == nil && raw.Read(func(uintptr) bool { return p.reap(syscall.WNOHANG) }) == nil {
			return
		}
	}
	p.reap(0) // a kernel without pidfd (before 5.3): one thread waits
}

func (p *Process) reap(options int) bool {
	for {
		var status syscall.WaitStatus
		if options&syscall.WNOHANG == 0 {
			awaitExit(p.PID)
		}
		p.mu.Lock()
		if p.group && hasEnded(p.PID) { // and so its number, not reaped, is still that of the group
			_ = syscall.Kill(-p.PID, syscall.SIGKILL)
		}
		pid, err := syscall.Wait4(p.PID, &status, syscall.WNOHANG, nil)
		if pid == p.PID || (err != nil && err != syscall.EINTR) {
			p.reaped = true
			p.exit = Exit{Status: status}
			p.mu.Unlock()
			return true
		}
		p.mu.Unlock()
		if options&syscall.WNOHANG != 0 {
			return false
		}
	}
}

// hasEnded tells whether pid has, and leaves it to be reaped.
func hasEnded(pid int) bool {
	var info unix.Siginfo
	return unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil) == nil && info.Signo != 0
}

// awaitExit blocks until pid has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// pollable returns a file on fd that Go's poller watches, or nil. It takes over fd.
func pollable(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}
