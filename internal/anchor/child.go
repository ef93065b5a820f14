package anchor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/scoreboard"
)

// child is a supervisor.
type child struct {
	pid    int
	pidfd  int
	spoke  bool // it has sent something: it has handlers for its signals
	proven bool // it has been ready
	status syscall.WaitStatus
}

// diedEvent: the process of child has ended and has been reaped.
type diedEvent struct{ child *child }

// vaultFD is the descriptor by which a supervisor inherits its end of the channel.
const vaultFD = 3

// start starts a supervisor: the program that was ready last, or at first the one that the
// operator means.
func (a *Anchor) start() error {
	path, files := a.opts.Program, []uintptr{0, 1, 2, uintptr(a.client.FD())}
	channel := strconv.Itoa(vaultFD)
	if a.binary >= 0 && !leadsTo(path, a.binary) {
		path = fmt.Sprintf("/proc/self/fd/%d", len(files))
		channel += "," + strconv.Itoa(len(files))
		files = append(files, uintptr(a.binary))
	}
	dir := a.dir
	if _, err := os.Stat(dir); err != nil {
		dir = "/" // it has been removed since
	}
	pidfd := -1
	pid, err := syscall.ForkExec(path, append([]string{a.opts.Program}, a.opts.Args...), &syscall.ProcAttr{
		Dir: dir, Env: a.environment(channel), Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", a.opts.Program, err)
	}
	a.child = &child{pid: pid, pidfd: pidfd}
	a.started = time.Now()
	a.log.Debug("supervisor started", "pid", pid)
	return nil
}

// leadsTo tells whether path is the file behind fd: then the process is executed by the
// path, after which the kernel names it.
func leadsTo(path string, fd int) bool {
	var named, held unix.Stat_t
	return unix.Stat(path, &named) == nil && unix.Fstat(fd, &held) == nil && named.Dev == held.Dev && named.Ino == held.Ino
}

// sameFile tells whether two descriptors are of one file.
func sameFile(a, b int) bool { return leadsTo(fmt.Sprintf("/proc/self/fd/%d", a), b) }

// follow takes pid, which a supervisor has started and which has put itself in charge, for
// the supervisor. It is a grandchild until the former one has left.
func (a *Anchor) follow(pid int) bool {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		a.log.Warn("supervisor in charge not followed", "pid", pid, "err", err)
		return false
	}
	if a.child != nil {
		activation.Close(a.child.pidfd)
	}
	c := &child{pid: pid, pidfd: pidfd, spoke: true}
	a.child, a.started, a.quick = c, time.Now(), 0
	a.pulse.reset()
	a.deliver()
	a.log.Info("another supervisor is in charge", "pid", pid)
	own, err := activation.Duplicate(pidfd)
	if err != nil {
		return true
	}
	go func() { // ends with the process
		awaitEnd(own)
		time.Sleep(reapDelay) // who is its parent takes the status first, which may be us
		select {
		case a.events <- diedEvent{c}:
		case <-a.ended:
		}
	}()
	return true
}

// reapDelay is how long the parent of a supervisor may take to reap it, before its end counts
// without a status.
const reapDelay = 100 * time.Millisecond

// awaitEnd returns when the process behind pidfd, which it takes over, has ended.
func awaitEnd(pidfd int) {
	_ = unix.SetNonblock(pidfd, true)
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	ready := func(timeout int) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, timeout)
		return n > 0 || err != nil && err != unix.EINTR
	}
	if raw.Read(func(uintptr) bool { return ready(0) }) != nil {
		for !ready(-1) {
		}
	}
}

// environment is what supervisors get: ours, without what speaks to this process.
func (a *Anchor) environment(channel string) []string {
	var env []string
	for _, e := range os.Environ() {
		key, _, _ := strings.Cut(e, "=")
		switch key {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE", ipc.EnvVault, ipc.EnvProgram, ipc.EnvFallen:
		default:
			env = append(env, e)
		}
	}
	if a.fallen {
		a.fallen = false
		env = append(env, ipc.EnvFallen+"=1")
	}
	return append(env, ipc.EnvVault+"="+channel, ipc.EnvProgram+"="+a.opts.Program)
}

// signal sends sig to the process, and to no later one of its number.
func (c *child) signal(sig syscall.Signal) {
	if c.pidfd >= 0 {
		_ = unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
		return
	}
	_ = syscall.Kill(c.pid, sig) // a kernel before 5.3; it has not been reaped
}

// reap takes the status of every child that has ended. Nobody else in this process waits
// for any, so that none is taken from anybody.
func (a *Anchor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if a.child != nil && pid == a.child.pid {
			activation.Close(a.child.pidfd)
			a.child.pidfd = -1
			a.child.status = status
			child := a.child
			go func() { // ends with the loop
				select {
				case a.events <- diedEvent{child}:
				case <-a.ended:
				}
			}()
			continue
		}
		a.record(pid, status)
	}
}

// record tells whoever watches an orphan how it has ended.
func (a *Anchor) record(pid int, status syscall.WaitStatus) {
	a.log.Debug("orphan reaped", "pid", pid, "exit", describe(status))
	if a.pulse.board == nil {
		return
	}
	for _, row := range a.pulse.board.Rows() {
		if row.Ended(pid, scoreboard.Exited(status)) {
			return
		}
	}
}

// children returns the processes of which this one is the parent (proc_pid_task_children,
// in the kernel's documentation of /proc; Debian's kernels have it).
func children() (pids []int) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for f := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
