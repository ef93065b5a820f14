package machine

import (
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
	cores    float64 // of a quota; 0: no limit
	coresBy  string  // the file that says so
	cpus     cpuSet  // nil: no limit
	cpusBy   string
	memory   uint64 // bytes, that the tightest cgroup may use in all
	memoryBy string // the file that says so; empty: no limit
	room     uint64 // and that may be used beside what is used
}

// readLimits reads those of the cgroups of this process and of all above them that it sees.
// root is that of the file system, empty for /. Without a controller there is no limit, and a
// file that cannot be understood is none either: the error names it.
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
	each := func(controller string, read func(dir string, version int) error) {
		g, err := findGroup(own, mounts, controller)
		if err != nil {
			return
		}
		for dir := range g.upwards {
			errs = append(errs, read(dir, g.version))
		}
	}
	each("memory", func(dir string, version int) error { return l.addMemory(root, dir, version) })
	each("cpu", func(dir string, version int) error {
		cores, file, err := quotaOf(root, dir, version)
		if cores > 0 && (l.cores == 0 || cores < l.cores) {
			l.cores, l.coresBy = cores, file
		}
		return err
	})
	each("cpuset", func(dir string, version int) error { return l.addCPUs(root, dir, version) })
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

// addMemory narrows l to what the cgroup of dir may use.
func (l *limits) addMemory(root, dir string, version int) error {
	m, err := memoryOf(root, dir, version)
	if m.limit == 0 && m.by == "" {
		return err
	}
	if room := m.limit - min(m.limit, m.used); l.memoryBy == "" || room < l.room {
		l.room = room
	}
	if l.memoryBy == "" || m.limit < l.memory {
		l.memory, l.memoryBy = m.limit, m.by
	}
	return err
}

// unlimited is more than any machine has: version 1 writes about 2^63 for no limit.
const unlimited = 1 << 60

// memoryUse is what a cgroup may use and does.
type memoryUse struct {
	limit uint64
	by    string // the file that says so; empty: no limit
	used  uint64
}

// lower takes the limit n over, if it is one and lower than what is known.
func (m *memoryUse) lower(n uint64, by string) {
	if n < unlimited && (m.by == "" || n < m.limit) {
		m.limit, m.by = n, by
	}
}

// memoryOf reads the files of the cgroup of dir. Of what it uses, the files that the kernel
// would give up count as free, as in MemAvailable (proc_meminfo(5)). Of version 2, memory.high
// counts as a limit: beyond it every allocation is slowed down until it is of no use (cgroup
// v2 in the kernel's admin guide, "Memory Interface Files"). Of version 1,
// memory.soft_limit_in_bytes does not: it only says from whom to take first.
func memoryOf(root, dir string, version int) (m memoryUse, err error) {
	files, usedFile, prefix := []string{"memory.max", "memory.high"}, "memory.current", ""
	if version == 1 {
		files, usedFile, prefix = []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_"
	}
	var errs []error
	for _, file := range files {
		n, ok, err := limitIn(root, dir, file)
		errs = append(errs, err)
		if ok {
			m.lower(n, path.Join(dir, file))
		}
	}
	stat, err := statOf(root, dir)
	errs = append(errs, err)
	// Of version 1 in a container, the only file that tells of cgroups above the visible ones.
	if n, ok := stat["hierarchical_memory_limit"]; ok && version == 1 {
		m.lower(n, path.Join(dir, "memory.stat")+" (hierarchical_memory_limit)")
	}
	if m.by == "" {
		return m, errors.Join(errs...)
	}
	text, err := read(root, dir, usedFile)
	if err == nil && text != "" {
		m.used, err = number(dir, usedFile, text)
	}
	for _, name := range []string{prefix + "active_file", prefix + "inactive_file"} {
		m.used -= min(m.used, stat[name])
	}
	return m, errors.Join(append(errs, err)...)
}

// limitIn returns the limit that a file of dir sets, if it sets one.
func limitIn(root, dir, file string) (n uint64, ok bool, err error) {
	text, err := read(root, dir, file)
	if err != nil || text == "" || text == "max" || text == "-1" {
		return 0, false, err
	}
	n, err = number(dir, file, text)
	return n, err == nil && n < unlimited, err
}

// statOf returns the lines "NAME NUMBER" of the memory.stat of dir. Others are skipped.
func statOf(root, dir string) (map[string]uint64, error) {
	text, err := read(root, dir, "memory.stat")
	if err != nil {
		return nil, err
	}
	stat := map[string]uint64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			stat[name] = n
		}
	}
	return stat, nil
}

// quotaOf returns how many cores' time the cgroup of dir may use, and which file says so; 0:
// as much as there is.
func quotaOf(root, dir string, version int) (cores float64, by string, err error) {
	var quota, period string
	file := "cpu.max" // QUOTA PERIOD
	if version == 2 {
		quota, err = read(root, dir, file)
		quota, period, _ = strings.Cut(quota, " ")
	} else {
		file = "cpu.cfs_quota_us"
		if quota, err = read(root, dir, file); err == nil {
			period, err = read(root, dir, "cpu.cfs_period_us")
		}
	}
	if err != nil || quota == "" || quota == "max" || quota == "-1" {
		return 0, "", err
	}
	q, err := number(dir, file, quota)
	if err != nil {
		return 0, "", err
	}
	p, err := number(dir, file, period)
	if err != nil {
		return 0, "", err
	}
	if p == 0 || q == 0 {
		return 0, "", fmt.Errorf("read %s: a quota of %d within %d µs is none", path.Join(dir, file), q, p)
	}
	return float64(q) / float64(p), path.Join(dir, file), nil
}

// addCPUs narrows l to the CPUs of the cgroup of dir.
func (l *limits) addCPUs(root, dir string, version int) error {
	files := []string{"cpuset.cpus.effective", "cpuset.cpus"}
	if version == 1 {
		files = []string{"cpuset.effective_cpus", "cpuset.cpus"}
	}
	for _, file := range files {
		text, err := read(root, dir, file)
		if err != nil {
			return err
		}
		if text == "" {
			continue // not set, or not there: the next one, or those above, tell
		}
		set, err := parseCPUs(text)
		if err != nil {
			return fmt.Errorf("read %s: %w", path.Join(dir, file), err)
		}
		if l.cpus != nil {
			both := l.cpus.and(set)
			if both.count() == 0 {
				return fmt.Errorf("read %s: %s has none of the CPUs of the cgroups below it", path.Join(dir, file), text)
			}
			if both.count() == l.cpus.count() {
				return nil
			}
			set = both
		}
		l.cpus, l.cpusBy = set, path.Join(dir, file)
		return nil
	}
	return nil
}

// read returns the text of a file, empty if there is none: the root cgroup has no limits.
func read(root, dir, name string) (string, error) {
	data, err := os.ReadFile(root + path.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path.Join(dir, name), errors.Unwrap(err))
	}
	return strings.TrimSpace(string(data)), nil
}

func number(dir, name, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path.Join(dir, name), err)
	}
	return n, nil
}
