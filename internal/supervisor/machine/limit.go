package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// limits are what cgroups leave this process, as container runtimes and systemd set them.
type limits struct {
	cores  int    // rounded up, as Go's runtime does for GOMAXPROCS; 0: no limit
	memory uint64 // bytes
	bound  bool   // there is a limit of memory
}

// readLimits reads those of the cgroups of this process and of all above them that it sees.
// root is that of the file system, empty for /. Without a controller there is no limit.
func readLimits(root string) (l limits, err error) {
	own, err := os.ReadFile(root + "/proc/self/cgroup")
	if err != nil {
		return l, fmt.Errorf("find the cgroups of this process: %w", err)
	}
	mounts, err := os.ReadFile(root + "/proc/self/mountinfo")
	if err != nil {
		return l, fmt.Errorf("find the cgroups of this process: %w", err)
	}
	var errs []error
	if g, err := findGroup(own, mounts, "memory"); err == nil {
		for dir := range g.upwards {
			room, bound, err := memoryOf(root+dir, g.version)
			if bound && (!l.bound || room < l.memory) {
				l.memory, l.bound = room, true
			}
			errs = append(errs, err)
		}
	}
	if g, err := findGroup(own, mounts, "cpu"); err == nil {
		for dir := range g.upwards {
			cores, err := coresOf(root+dir, g.version)
			if cores > 0 && (l.cores == 0 || cores < l.cores) {
				l.cores = cores
			}
			errs = append(errs, err)
		}
	}
	return l, errors.Join(errs...)
}

// upwards yields the directories of g and of those above it.
func (g group) upwards(yield func(string) bool) {
	for below := path.Clean("/" + g.below); ; below = path.Dir(below) {
		if !yield(path.Join(g.mount, below)) || below == "/" {
			return
		}
	}
}

// unlimited is more than any machine has: version 1 writes about 2^63 for no limit.
const unlimited = 1 << 60

// memoryOf returns how much more the cgroup of dir may use. Of what it uses, the files that
// the kernel would give up count as free, as in MemAvailable (proc_meminfo(5)).
func memoryOf(dir string, version int) (room uint64, bound bool, err error) {
	limitFile, usedFile, prefix := "memory.max", "memory.current", ""
	if version == 1 {
		limitFile, usedFile, prefix = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
	}
	text, err := read(dir, limitFile)
	if err != nil || text == "" || text == "max" {
		return 0, false, err
	}
	limit, err := number(dir, limitFile, text)
	if err != nil || limit >= unlimited {
		return 0, false, err
	}
	text, err = read(dir, usedFile)
	if err != nil {
		return limit, true, err
	}
	used, err := number(dir, usedFile, text)
	if err != nil {
		return limit, true, err
	}
	stat, err := os.ReadFile(path.Join(dir, "memory.stat"))
	if err != nil {
		return limit - min(limit, used), true, err
	}
	for line := range bytes.Lines(stat) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if name != prefix+"active_file" && name != prefix+"inactive_file" {
			continue
		}
		cached, err := number(dir, "memory.stat", value)
		if err != nil {
			return limit - min(limit, used), true, err
		}
		used -= min(used, cached)
	}
	return limit - min(limit, used), true, nil
}

// coresOf returns how many cores' time the cgroup of dir may use; 0: as much as there is.
func coresOf(dir string, version int) (int, error) {
	var quota, period string
	var err error
	file := "cpu.max" // QUOTA PERIOD
	if version == 2 {
		quota, err = read(dir, file)
		quota, period, _ = strings.Cut(quota, " ")
	} else {
		file = "cpu.cfs_quota_us"
		if quota, err = read(dir, file); err == nil {
			period, err = read(dir, "cpu.cfs_period_us")
		}
	}
	if err != nil || quota == "" || quota == "max" || quota == "-1" {
		return 0, err
	}
	q, err := number(dir, file, quota)
	if err != nil {
		return 0, err
	}
	p, err := number(dir, file, period)
	if err != nil || p == 0 {
		return 0, err
	}
	return int(min((q+p-1)/p, 1<<16)), nil
}

// read returns the text of a file, empty if there is none: the root cgroup has no limits.
func read(dir, name string) (string, error) {
	data, err := os.ReadFile(path.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}

func number(dir, name, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path.Join(dir, name), err)
	}
	return n, nil
}
