package machine

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestTrees reads whole trees of files as kernels, container runtimes and systemd make them;
// testdata/cgroup has them. The comment of each says what it is and, in lines "want: ", what
// becomes of a machine of 64 CPUs and 256 GiB there, and each error.
func TestTrees(t *testing.T) {
	eachTree(t, "testdata/cgroup/*.txtar", 15, func(root string) ([]string, error) {
		r := Resources{Bounds: Bounds{Cores: 64, Memory: 256 << 30}, CoresBy: TheMachine, MemoryBy: TheMachine, Available: 250 << 30}
		l, err := readLimits(root)
		r.narrow(l, nil)
		return []string{
			fmt.Sprintf("%v cores by %s", r.Cores, r.CoresBy),
			fmt.Sprintf("%d MiB by %s, %d available, limited %v", r.Memory>>20, r.MemoryBy, r.Available>>20, r.Limited),
		}, err
	})
}

// eachTree has read read the trees of files that pattern names, at least so many, and compares
// what it says and each error with the lines "want: " of their comments.
func eachTree(t *testing.T, pattern string, least int, read func(root string) ([]string, error)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		t.Fatalf("%d trees, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(a.Comment)) {
				if w, ok := strings.CutPrefix(line, "want: "); ok {
					want = append(want, strings.TrimSpace(w))
				}
			}
			root := unpack(t, a)
			got, err := read(root)
			if err != nil {
				for line := range strings.Lines(strings.ReplaceAll(err.Error(), root, "")) {
					got = append(got, "error: "+strings.TrimSpace(line))
				}
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// unpack writes the files of a below a directory of its own; what ends in a slash is a
// directory, which no file can be read from.
func unpack(t *testing.T, a *txtar.Archive) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range a.Files {
		file := filepath.Join(root, f.Name)
		dir := filepath.Dir(file)
		if strings.HasSuffix(f.Name, "/") {
			dir = file
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir == file {
			continue
		}
		if err := os.WriteFile(file, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAffinityNarrows(t *testing.T) {
	cpus := func(text string) cpuSet {
		set, err := parseCPUs(text)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	for _, c := range []struct {
		name            string
		cpuset, allowed string
		quota, want     float64
		by              string
	}{
		{"affinity alone", "", "0-1", 0, 2, "the CPU affinity"},
		{"part of the cpuset", "0-3", "2-9", 0, 2, "set"},
		{"a file of other CPUs than the kernel's", "0-3", "8-9", 0, 2, "the CPU affinity"},
		{"a quota below both", "0-3", "0-3", 2.5, 2.5, "quota"},
		{"a quota above both", "", "5", 2.5, 1, "the CPU affinity"},
		{"none", "", "", 0, 64, TheMachine},
	} {
		r := Resources{Bounds: Bounds{Cores: 64}, CoresBy: TheMachine}
		l := limits{cores: c.quota, coresBy: "quota"}
		if c.cpuset != "" {
			l.cpus, l.cpusBy = cpus(c.cpuset), "set"
		}
		var allowed cpuSet
		if c.allowed != "" {
			allowed = cpus(c.allowed)
		}
		if r.narrow(l, allowed); r.Cores != c.want || r.CoresBy != c.by {
			t.Errorf("%s: %v by %s", c.name, r.Cores, r.CoresBy)
		}
	}
}

func FuzzParseCPUs(f *testing.F) {
	f.Add("0-3,8")
	f.Add("0,2-5,1023")
	f.Add("5-1")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := parseCPUs(text)
		if (err == nil) != (set != nil) || err == nil && (set.count() < 1 || set.count() > maxCPUs) {
			t.Errorf("%d, %v", set.count(), err)
		}
	})
}

// FuzzLimits: whatever the files say, nothing panics, and what comes out can be used.
func FuzzLimits(f *testing.F) {
	f.Add("1000", "700", "150000 100000", "0-3", "inactive_file 200\n", true)
	f.Add("max", "-1", "max 100000", "", "", true)
	f.Add("9223372036854771712", "700", "-1", "0", "hierarchical_memory_limit 7\n", false)
	f.Fuzz(func(t *testing.T, limit, used, quota, cpus, stat string, v2 bool) {
		dir := t.TempDir()
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		version := 1
		if v2 {
			version = 2
		}
		for _, name := range []string{"memory.max", "memory.limit_in_bytes"} {
			write(name, limit)
		}
		for _, name := range []string{"memory.current", "memory.usage_in_bytes"} {
			write(name, used)
		}
		for _, name := range []string{"cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"} {
			write(name, quota)
		}
		write("cpuset.cpus", cpus)
		write("memory.stat", stat)
		var l limits
		_ = l.addMemory(dir, "/", version)
		l.cores, l.coresBy, _ = quotaOf(dir, "/", version)
		_ = l.addCPUs(dir, "/", version)
		r := Resources{Bounds: Bounds{Cores: 4, Memory: 1 << 30}, Available: 1 << 30}
		r.narrow(l, nil)
		if !(r.Cores > 0) || r.Cores > 4 || math.IsNaN(r.Cores) || r.Available == 0 || r.Available > 1<<30 || r.Memory == 0 || r.Memory > 1<<30 {
			t.Errorf("%+v of %+v", r, l)
		}
	})
}
