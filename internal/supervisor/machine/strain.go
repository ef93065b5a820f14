package machine

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Strain is how short memory is: of this process's cgroup, of one above it or of the machine,
// whichever has least room.
type Strain struct {
	Limit uint64 // bytes; 0: unknown
	By    string // the file that says so, or "the machine"
	// Used is what comes back only from who has it: all but files that could be read again.
	Used uint64
	// Mapped is what processes have mapped of such files. The kernel takes them away first, and
	// reads them again when they are touched: weights that all workers use are of these.
	Mapped      uint64
	Stalled     time.Duration // in which some process waited for memory, ever; see StallKnown
	StallKnown  bool          // the kernel tells (PSI)
	MajorFaults uint64        // pages that had to be read, ever
	Kills       uint64        // of processes for want of memory, ever; of the machine: 0
}

// ReadStrain reads it. What cannot be read is left out, and the error names it.
func ReadStrain() (Strain, error) { return readStrain("") }

// readStrain does so; root is that of the file system, empty for /.
func readStrain(root string) (Strain, error) {
	best, err := machineStrain(root)
	errs := []error{err}
	dir, version := "", 0
	own, err := os.ReadFile(root + "/proc/self/cgroup")
	errs = append(errs, err)
	mounts, err := os.ReadFile(root + "/proc/self/mountinfo")
	errs = append(errs, err)
	if g, err := findGroup(own, mounts, "memory"); err == nil {
		for d := range g.upwards {
			s, limited, err := groupStrain(root, d, g.version)
			errs = append(errs, err)
			if limited && (best.Limit == 0 || s.room() < best.room()) {
				best, dir, version = s, d, g.version
			}
		}
	}
	switch version {
	case 2:
		err = best.addPressure(root, dir, "memory.pressure")
		best.Kills = killsIn(root, path.Join(dir, eventsFile))
	case 1: // has none of its own; the machine's has its processes, too
		best.Kills = killsIn(root, path.Join(dir, oomControlFile))
		fallthrough
	default:
		err = best.addPressure(root, "/proc/pressure", "memory")
	}
	return best, errors.Join(append(errs, err)...)
}

// room is what may be used without anybody's reading anything twice.
func (s Strain) room() uint64 {
	rest := s.Limit - min(s.Limit, s.Used)
	return rest - min(rest, s.Mapped)
}

// groupStrain reads that of the cgroup of dir; limited: it has a limit.
func groupStrain(root, dir string, version int) (s Strain, limited bool, err error) {
	m, err := memoryOf(root, dir, version)
	if m.by == "" {
		return s, false, err
	}
	stat, statErr := statOf(root, dir)
	mapped, faults, prefix := "file_mapped", "pgmajfault", ""
	if version == 1 {
		mapped, faults, prefix = "total_mapped_file", "total_pgmajfault", "total_"
	}
	s = Strain{Limit: m.limit, By: m.by, Used: m.used, MajorFaults: stat[faults]}
	// Shared memory is mapped as well, and is no file that could be read again: it is not among
	// those on the lists of files.
	s.Mapped = min(stat[mapped], stat[prefix+"active_file"]+stat[prefix+"inactive_file"])
	return s, true, errors.Join(err, statErr)
}

// machineStrain reads that of the machine, but for its pressure.
func machineStrain(root string) (s Strain, err error) {
	info, err := linesOf(root, "/proc/meminfo")
	if err != nil {
		return s, err
	}
	stat, err := linesOf(root, "/proc/vmstat")
	s.MajorFaults = stat["pgmajfault"]
	total, available := info["MemTotal"]<<10, info["MemAvailable"]<<10
	if total == 0 || available == 0 || total >= unlimited || available > total {
		return s, errors.Join(err, errors.New("read /proc/meminfo: it has no MemTotal and MemAvailable that make sense"))
	}
	s.Limit, s.By, s.Used = total, TheMachine, total-available
	s.Mapped = min(info["Mapped"], info["Active(file)"]+info["Inactive(file)"]) << 10
	return s, err
}

// linesOf returns the lines "NAME NUMBER" or "NAME: NUMBER kB" of a file. Others are skipped.
func linesOf(root, file string) (map[string]uint64, error) {
	data, err := os.ReadFile(root + file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, errors.Unwrap(err))
	}
	lines := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 50); err == nil { // kB: as bytes it fits, too
			lines[strings.TrimSuffix(fields[0], ":")] = n
		}
	}
	return lines, nil
}

// addPressure reads a file of pressure, as Documentation/accounting/psi.rst of the kernel has it.
// A kernel without leaves it unknown; one where it is switched off refuses to read the file.
func (s *Strain) addPressure(root, dir, name string) error {
	text, err := read(root, dir, name)
	if err != nil || text == "" {
		return nil
	}
	stalled, err := parsePressure(text)
	if err != nil {
		return fmt.Errorf("read %s: %w", path.Join(dir, name), err)
	}
	s.Stalled, s.StallKnown = stalled, true
	return nil
}

// parsePressure returns the total of the line "some", in which at least one process waited.
func parsePressure(text string) (time.Duration, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "some" {
			continue
		}
		for _, f := range fields[1:] {
			if total, ok := strings.CutPrefix(f, "total="); ok {
				us, err := strconv.ParseUint(total, 10, 53) // as nanoseconds it fits, too
				return time.Duration(us) * time.Microsecond, err
			}
		}
	}
	return 0, errors.New("it has no line some with a total")
}

// killsIn returns what a file counts, 0 where it does not.
func killsIn(root, file string) uint64 {
	n, err := OOM{root}.Kills(file)
	if err != nil {
		return 0
	}
	return n
}
