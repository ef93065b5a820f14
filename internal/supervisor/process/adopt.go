package process

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Adopted is a process that another one has started, and somebody else will reap.
type Adopted struct {
	PID    int
	Output int // the reading end of its pipe, which stays the caller's; -1: it has none
	// Line is as in Spec.
	Line func(pid int, line string)
	// Status tells how the process has ended, once it has been reaped; false: not known.
	Status func() (syscall.WaitStatus, bool)
}

// Adopt watches a process as Start does one of our own: by a pidfd, which no later process
// of its number can take (pidfd_open(2)). It is an error if the process has ended.
func Adopt(a Adopted) (*Process, error) {
	pidfd, err := unix.PidfdOpen(a.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", a.PID, err)
	}
	p := &Process{PID: a.PID, pidfd: pidfd, watch: a.Status, done: make(chan struct{})}
	var out *output
	if a.Output >= 0 {
		fd, err := unix.FcntlInt(uintptr(a.Output), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			unix.Close(pidfd)
			return nil, fmt.Errorf("take the output of process %d: %w", a.PID, err)
		}
		out = newOutput(fd, func(line string) { a.Line(a.PID, line) })
	}
	go p.follow(out)
	return p, nil
}

// follow waits for the process, then for its output.
func (p *Process) follow(out *output) {
	defer close(p.done)
	if out != nil {
		go out.read()
	}
	p.awaitAdopted()
	if out != nil {
		out.finish()
	}
}

// reapLimit is how long whoever reaps the process may take, and reapPoll how often to look.
const (
	reapLimit = 2 * time.Second
	reapPoll  = time.Millisecond
)

// awaitAdopted returns when the process has ended and, unless that takes too long, has been
// reaped.
func (p *Process) awaitAdopted() {
	awaitReadable(p.pidfd)
	for deadline := time.Now().Add(reapLimit); time.Now().Before(deadline); time.Sleep(reapPoll) {
		if unix.PidfdSendSignal(p.pidfd, 0, nil, 0) == unix.ESRCH {
			break
		}
	}
	status, known := p.watch()
	for deadline := time.Now().Add(reapLimit / 20); !known && time.Now().Before(deadline); time.Sleep(reapPoll) {
		status, known = p.watch() // it is written down just after
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	p.exit = Exit{Status: status, Unknown: !known}
	unix.Close(p.pidfd)
}

// awaitReadable returns when fd is readable: by Go's poller, so that no thread waits, or
// where that does not know such descriptors, by a thread.
func awaitReadable(fd int) {
	ready := func(timeout int) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, timeout)
		return n > 0 || err != nil && err != unix.EINTR
	}
	if own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		if f := pollable(own, "pidfd"); f != nil {
			defer f.Close()
			if raw, err := f.SyscallConn(); err == nil && raw.Read(func(uintptr) bool { return ready(0) }) == nil {
				return
			}
		}
	}
	for !ready(-1) {
	}
}
