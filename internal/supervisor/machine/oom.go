package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
)

// OOM finds out how many processes the kernel has killed for want of memory. The zero
// value looks at this machine.
type OOM struct {
	root string // of the file system; empty: /
}

// Counter returns the file in which the memory cgroup of process pid counts them: it
// names the cgroup, too, to which the count belongs. The error says why there is none, as
// in the root cgroup, or without a memory controller.
func (o OOM) Counter(pid int) (string, error) {
	own, err := os.ReadFile(fmt.Sprintf("%s/proc/%d/cgroup", o.root, pid))
	if err != nil {
		return "", fmt.Errorf("find the memory cgroup of process %d: %w", pid, err)
	}
	mounts, err := os.ReadFile(o.root + "/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the memory cgroup of process %d: %w", pid, err)
	}
	file, err := counterFile(own, mounts)
	if err != nil {
		return "", fmt.Errorf("find the memory cgroup of process %d: %w", pid, err)
	}
	return file, nil
}

// Kills returns what file, which Counter returned, counts now.
func (o OOM) Kills(file string) (uint64, error) {
	data, err := os.ReadFile(o.root + file)
	if err != nil {
		return 0, fmt.Errorf("read the count of OOM kills: %w", err)
	}
	n, err := parseKills(data)
	if err != nil {
		return 0, fmt.Errorf("read the count of OOM kills: %s: %w", file, err)
	}
	return n, nil
}

// Files with the line "oom_kill N": of version 2 (cgroups, "Memory Interface Files", in the
// kernel's admin guide), and of version 1 (cgroups-v1/memory, since Linux 4.13). The first counts
// the cgroups below it, too.
const (
	eventsFile     = "memory.events"
	oomControlFile = "memory.oom_control"
)

// counterFile finds the file in the texts of /proc/PID/cgroup (cgroups(7)) and
// /proc/self/mountinfo (proc_pid_mountinfo(5)).
func counterFile(own, mounts []byte) (string, error) {
	g, err := findGroup(own, mounts, "memory")
	if err != nil {
		return "", err
	}
	if g.version == 1 {
		return path.Join(g.mount, g.below, oomControlFile), nil
	}
	return path.Join(g.mount, g.below, eventsFile), nil
}

func parseKills(data []byte) (uint64, error) {
	for line := range bytes.Lines(data) {
		if text, ok := strings.CutPrefix(string(line), "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(text), 10, 64)
		}
	}
	return 0, errors.New("it has no line oom_kill")
}
