package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what is used of /proc/PID/stat, proc_pid_stat(5).
type stat struct {
	pid, parent int
	state       byte
	reaped      time.Duration // CPU time of children that ended and were waited for
	birth       uint64        // clock ticks since boot
}

// tick is the unit of times in /proc: USER_HZ is 100 on every architecture of Linux
// that Go runs on.
const tick = 10 * time.Millisecond

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	// The second field is the program's name in parentheses, which may contain
	// anything, parentheses too.
	i := bytes.LastIndexByte(text, ')')
	if i < 0 {
		return stat{}, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	fields := bytes.Fields(text[i+1:]) // from the third on
	number := func(field int) (n uint64) {
		if err == nil {
			n, err = strconv.ParseUint(string(fields[field-3]), 10, 64)
		}
		return n
	}
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	s := stat{pid: pid, state: fields[0][0], parent: int(number(4)), birth: number(22)}
	s.reaped = time.Duration(number(16)+number(17)) * tick
	return s, err
}

// all returns every process there is.
func all() ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []stat
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil { // else it has ended meanwhile
			list = append(list, s)
		}
	}
	return list, nil
}

// Tree returns the process and its descendants that live, the process first. One whose
// parent has ended stays in the tree if it had been seen before.
func (p *Proc) Tree() ([]int, error) {
	stats, err := p.tree()
	var pids []int
	for _, s := range stats {
		pids = append(pids, s.pid)
	}
	return pids, err
}

func (p *Proc) tree() ([]stat, error) {
	list, err := all()
	if err != nil {
		return nil, err
	}
	children := map[int][]stat{}
	var tree []stat
	in := map[int]bool{}
	add := func(s stat) {
		if !in[s.pid] {
			in[s.pid] = true
			tree = append(tree, s)
		}
	}
	for _, s := range list {
		children[s.parent] = append(children[s.parent], s)
		if s.pid == p.PID() {
			add(s)
		}
	}
	for _, s := range list {
		if birth, known := p.seen[s.pid]; known && birth == s.birth {
			add(s)
		}
	}
	for i := 0; i < len(tree); i++ { // tree grows
		p.seen[tree[i].pid] = tree[i].birth
		for _, c := range children[tree[i].pid] {
			add(c)
		}
	}
	return tree, nil
}

// notice remembers the tree as it is, for Stop.
func (p *Proc) notice() { _, _ = p.tree() }

// CPU returns the CPU time, user and system, that the tree has used: of each process
// that lives, and of each that ended and was reaped within the tree. It does not go
// back unless a process ended whose parent did not wait for it.
func (p *Proc) CPU() (time.Duration, error) {
	tree, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, s := range tree {
		own, err := cpuOf(s.pid)
		if err != nil {
			continue // it has ended meanwhile; its parent's account has it
		}
		sum += own + s.reaped
	}
	return sum, nil
}

// CPUOf returns the CPU time, user and system, of these processes together.
func CPUOf(pids ...int) (sum time.Duration, err error) {
	for _, pid := range pids {
		own, err := cpuOf(pid)
		if err != nil {
			return 0, err
		}
		sum += own
	}
	return sum, nil
}

// cpuOf returns what utime and stime of /proc/PID/stat add up to, in nanoseconds
// instead of ticks: the process's CPU clock, clock_getcpuclockid(3).
func cpuOf(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED, linux/posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// SelfCPU returns the CPU time of the calling process.
func SelfCPU() (time.Duration, error) { return cpuOf(os.Getpid()) }

// PSS returns a process's proportional set size in bytes: its memory, each shared page
// divided by how many share it (proc_pid_smaps(5)).
func PSS(pid int) (int64, error) { return sizeIn(pid, "smaps_rollup", "Pss:") }

// Private returns how much memory a process shares with nobody, in bytes (proc_pid_smaps(5)).
func Private(pid int) (int64, error) {
	dirty, err := sizeIn(pid, "smaps_rollup", "Private_Dirty:")
	if err != nil {
		return 0, err
	}
	clean, err := sizeIn(pid, "smaps_rollup", "Private_Clean:")
	return dirty + clean, err
}

// HighWater returns the most that was resident of a process at once, shared pages in full
// (VmHWM, proc_pid_status(5)).
func HighWater(pid int) (int64, error) { return sizeIn(pid, "status", "VmHWM:") }

// sizeIn returns the size that a file in /proc/PID has beside a name.
func sizeIn(pid int, file, name string) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			kb, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s has no %s", pid, file, name)
}
