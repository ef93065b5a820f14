package machine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// group is the cgroup of a process that has some controller.
type group struct {
	version int
	mount   string // where its hierarchy, or the part of it that this process sees, is mounted
	below   string // its path there
}

// findGroup finds it in the texts of /proc/PID/cgroup (cgroups(7)) and /proc/self/mountinfo
// (proc_pid_mountinfo(5)). Where version 1 has the controller, version 2 cannot have it.
func findGroup(own, mounts []byte, controller string) (group, error) {
	version, within, ok := pathWithin(own, controller)
	if !ok {
		return group{}, fmt.Errorf("it is in no %s cgroup", controller)
	}
	for line := range bytes.Lines(mounts) {
		root, at, ok := mountOf(string(line), version, controller)
		if !ok {
			continue
		}
		if below, ok := strings.CutPrefix(within+"/", strings.TrimSuffix(root, "/")+"/"); ok {
			return group{version, at, strings.TrimSuffix(below, "/")}, nil
		}
	}
	return group{}, fmt.Errorf("its %s cgroup %s is not mounted", controller, within)
}

// pathWithin returns the path of a process's cgroup within its hierarchy, and the version
// of that.
func pathWithin(own []byte, controller string) (version int, within string, ok bool) {
	for line := range bytes.Lines(own) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") || strings.HasPrefix(fields[2], "/..") {
			continue // the last is one outside of this process's namespace (cgroup_namespaces(7))
		}
		for c := range strings.SplitSeq(fields[1], ",") {
			if c == controller {
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
func mountOf(line string, version int, controller string) (root, at string, ok bool) {
	kind := "cgroup2"
	if version == 1 {
		kind = "cgroup"
	}
	mount, super, _ := strings.Cut(line, " - ")
	fields, rest := strings.Fields(mount), strings.Fields(super)
	if len(fields) < 5 || len(rest) < 3 || rest[0] != kind {
		return "", "", false
	}
	if version == 1 && !strings.Contains(","+rest[2]+",", ","+controller+",") {
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
