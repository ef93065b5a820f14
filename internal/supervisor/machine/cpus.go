package machine

import (
	"fmt"
	"strconv"
	"strings"
)

// cpuSet is a set of CPUs by number.
type cpuSet []bool

// maxCPUs bounds their numbers: Linux is built for 8192 at most (NR_CPUS).
const maxCPUs = 8192

// parseCPUs reads a list as the kernel writes it: 0-3,8 (cpuset(7), "List format").
func parseCPUs(text string) (cpuSet, error) {
	set := make(cpuSet, maxCPUs)
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("list of CPUs %.40q: %w", text, err)
		}
		b, err := strconv.ParseUint(to, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("list of CPUs %.40q: %w", text, err)
		}
		if a > b || b >= maxCPUs {
			return nil, fmt.Errorf("list of CPUs %.40q: no range from %d to %d", text, a, b)
		}
		for i := a; i <= b; i++ {
			set[i] = true
		}
	}
	return set, nil
}

// and returns what is in both sets.
func (s cpuSet) and(o cpuSet) cpuSet {
	both := make(cpuSet, min(len(s), len(o)))
	for i := range both {
		both[i] = s[i] && o[i]
	}
	return both
}

func (s cpuSet) count() (n int) {
	for _, in := range s {
		if in {
			n++
		}
	}
	return n
}
