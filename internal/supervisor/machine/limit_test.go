package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLimits reads whole trees of files, as kernels write them.
func TestLimits(t *testing.T) {
	const (
		v1Cpu       = "35 30 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
		v1CpuInside = "35 30 0:32 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
	)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  limits
		err   string
	}{
		{"v2", map[string]string{
			"proc/self/cgroup": "0::/s/u\n", "proc/self/mountinfo": v2Mount,
			"sys/fs/cgroup/s/u/memory.max": "1000\n", "sys/fs/cgroup/s/u/memory.current": "700\n",
			"sys/fs/cgroup/s/u/memory.stat": "anon 400\nfile 290\ninactive_file 200\nactive_file 50\nshmem 40\n",
			"sys/fs/cgroup/s/u/cpu.max":     "150000 100000\n",
		}, limits{cores: 2, memory: 550, bound: true}, ""},
		{"v2, a level above has less", map[string]string{
			"proc/self/cgroup": "0::/s/u\n", "proc/self/mountinfo": v2Mount,
			"sys/fs/cgroup/s/u/memory.max": "1000\n", "sys/fs/cgroup/s/u/memory.current": "100\n", "sys/fs/cgroup/s/u/memory.stat": "",
			"sys/fs/cgroup/s/memory.max": "1200\n", "sys/fs/cgroup/s/memory.current": "1100\n", "sys/fs/cgroup/s/memory.stat": "",
			"sys/fs/cgroup/s/u/cpu.max": "max 100000\n", "sys/fs/cgroup/s/cpu.max": "50000 100000\n",
		}, limits{cores: 1, memory: 100, bound: true}, ""},
		{"v2, none", map[string]string{
			"proc/self/cgroup": "0::/s\n", "proc/self/mountinfo": v2Mount,
			"sys/fs/cgroup/s/memory.max": "max\n", "sys/fs/cgroup/s/memory.current": "100\n", "sys/fs/cgroup/s/cpu.max": "max 100000\n",
		}, limits{}, ""},
		{"v1, container", map[string]string{
			"proc/self/cgroup": "4:memory:/docker/abc\n1:cpu:/docker/abc\n0::/docker/abc\n", "proc/self/mountinfo": v1Container + v1CpuInside,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "700\n",
			"sys/fs/cgroup/memory/memory.stat":    "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 50\n",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":  "50000\n",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
		}, limits{cores: 1, memory: 450, bound: true}, ""},
		{"v1, none", map[string]string{
			"proc/self/cgroup": "4:memory:/\n1:cpu:/\n", "proc/self/mountinfo": v1Mount + v1Cpu,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "700\n",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
		}, limits{}, ""},
		{"more used than allowed", map[string]string{
			"proc/self/cgroup": "0::/s\n", "proc/self/mountinfo": v2Mount,
			"sys/fs/cgroup/s/memory.max": "1000\n", "sys/fs/cgroup/s/memory.current": "1001\n", "sys/fs/cgroup/s/memory.stat": "",
		}, limits{memory: 0, bound: true}, ""},
		{"no controllers", map[string]string{"proc/self/cgroup": "", "proc/self/mountinfo": otherMounts}, limits{}, ""},
		{"no cgroups", nil, limits{}, "no such file"},
		{"nonsense", map[string]string{
			"proc/self/cgroup": "0::/s\n", "proc/self/mountinfo": v2Mount,
			"sys/fs/cgroup/s/memory.max": "much\n", "sys/fs/cgroup/s/cpu.max": "100000\n",
		}, limits{}, "much"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range c.files {
				file := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := readLimits(root)
			if got != c.want || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
