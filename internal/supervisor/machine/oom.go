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
// /proc/self/mountinfo (proc_pid_mountinfo(5)). Where version 1 has the memory controller,
// version 2 cannot have it.
func counterFile(own, mounts []byte) (string, error) {
	version, within, ok := memoryCgroup(own)
	if !ok {
		return "", errors.New("it is in no memory cgroup")
	}
	kind, name := "cgroup2", eventsFile
	if version == 1 {
		kind, name = "cgroup", oomControlFile
	}
	for line := range bytes.Lines(mounts) {
		root, at, ok := mountOf(string(line), kind)
		if !ok {
			continue
		}
		if below, ok := strings.CutPrefix(within+"/", strings.TrimSuffix(root, "/")+"/"); ok {
			return path.Join(at, below, name), nil
		}
	}
	return "", fmt.Errorf("its memory cgroup %s is not mounted", within)
}

// memoryCgroup returns the path of a process's memory cgroup within its hierarchy, and
// the version of that.
func memoryCgroup(own []byte) (version int, within string, ok bool) {
	for line := range bytes.Lines(own) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") || strings.HasPrefix(fields[2], "/..") {
			continue // the last is one outside of this process's namespace (cgroup_namespaces(7))
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			if controller == "memory" {
				return 1, fields[2], true
			}
		}
		if fields[0] == "0" && fields[1] == "" {
			version, within, ok = 2, fields[2], true
		}
	}
	return version, within, ok
}

// mountOf returns which part of a cgroup hierarchy the mount of one line shows, and where.
func mountOf(line, kind string) (root, at string, ok bool) {
	mount, super, _ := strings.Cut(line, " - ")
	fields, rest := strings.Fields(mount), strings.Fields(super)
	if len(fields) < 5 || len(rest) < 3 || rest[0] != kind {
		return "", "", false
	}
	if kind == "cgroup" && !strings.Contains(","+rest[2]+",", ",memory,") {
		return "", "", false
	}
	return unescape(fields[3]), unescape(fields[4]), true
}

// unescape undoes mountinfo's escapes: \040 is a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func parseKills(data []byte) (uint64, error) {
	for line := range bytes.Lines(data) {
		if text, ok := strings.CutPrefix(string(line), "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(text), 10, 64)
		}
	}
	return 0, errors.New("it has no line oom_kill")
}
