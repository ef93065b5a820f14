package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Lines of mountinfo as kernels write them.
const (
	v1Mount     = "34 30 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	v1Joined    = "34 30 0:31 / /sys/fs/cgroup/cpu,memory rw,relatime shared:9 - cgroup cgroup rw,cpu,memory\n"
	v1Container = "34 30 0:31 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"
	v2Mount     = "40 30 0:37 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	v2Hybrid    = "40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	v2Spaces    = "40 30 0:37 / /mnt/my\\040groups\\134x rw - cgroup2 none rw\n"
	otherMounts = "22 1 8:1 / / rw - ext4 /dev/root rw\n31 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\nnonsense\n"
)

func TestCounterFile(t *testing.T) {
	for _, c := range []struct{ name, own, mounts, file, err string }{
		{"v2", "0::/system.slice/preforkd.service\n", v2Mount, "/sys/fs/cgroup/system.slice/preforkd.service/memory.events", ""},
		{"v2, namespace", "0::/\n", v2Mount, "/sys/fs/cgroup/memory.events", ""},
		{"v2, odd place", "0::/a\n", v2Spaces, "/mnt/my groups\\x/a/memory.events", ""},
		{"v1", "5:cpu:/x\n4:memory:/a/b\n0::/c\n", v2Hybrid + v1Mount, "/sys/fs/cgroup/memory/a/b/memory.oom_control", ""},
		{"v1, joined", "4:cpu,memory:/a\n", v1Joined, "/sys/fs/cgroup/cpu,memory/a/memory.oom_control", ""},
		{"v1, container", "4:memory:/docker/abc/x\n", v1Container, "/sys/fs/cgroup/memory/x/memory.oom_control", ""},
		{"v1, container itself", "4:memory:/docker/abc\n", v1Container, "/sys/fs/cgroup/memory/memory.oom_control", ""},
		{"outside of the container's mount", "4:memory:/docker/abcd\n", v1Container, "", "/docker/abcd is not mounted"},
		{"a name with colons", "0::/a:b\n", v2Mount, "/sys/fs/cgroup/a:b/memory.events", ""},
		{"nothing mounted", "0::/a\n", "", "", "not mounted"},
		{"no memory cgroup", "1:cpu:/a\n", v1Mount, "", "no memory cgroup"},
		{"outside of the namespace", "0::/../a\n", v2Mount, "", "no memory cgroup"},
		{"nonsense", "\nx\n0:\n0::a\n", v1Mount, "", "no memory cgroup"},
	} {
		file, err := counterFile([]byte(c.own), []byte(otherMounts+c.mounts))
		if file != c.file || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %q, %v", c.name, file, err)
		}
	}
}

// TestKillsOfATree reads whole trees of files, those of both versions and those that
// lack something.
func TestKillsOfATree(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		kills uint64
		err   string
	}{
		{"v2", map[string]string{
			"proc/7/cgroup": "0::/s\n", "proc/self/mountinfo": v2Mount,
			"sys/fs/cgroup/s/memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n",
		}, 2, ""},
		{"v1", map[string]string{
			"proc/7/cgroup": "4:memory:/s\n", "proc/self/mountinfo": v1Mount,
			"sys/fs/cgroup/memory/s/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 41\n",
		}, 41, ""},
		{"an old kernel", map[string]string{
			"proc/7/cgroup": "4:memory:/s\n", "proc/self/mountinfo": v1Mount,
			"sys/fs/cgroup/memory/s/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n",
		}, 0, "no line oom_kill"},
		{"root cgroup", map[string]string{"proc/7/cgroup": "0::/\n", "proc/self/mountinfo": v2Mount}, 0, "no such file"},
		{"no mountinfo", map[string]string{"proc/7/cgroup": "0::/s\n"}, 0, "no such file"},
		{"ended", nil, 0, "no such file"},
		{"nonsense", map[string]string{
			"proc/7/cgroup": "0::/s\n", "proc/self/mountinfo": v2Mount, "sys/fs/cgroup/s/memory.events": "oom_kill many\n",
		}, 0, "many"},
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
			o := OOM{root: root}
			file, err := o.Counter(7)
			var kills uint64
			if err == nil {
				kills, err = o.Kills(file)
			}
			if kills != c.kills || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%d, %v", kills, err)
			}
		})
	}
}

func FuzzCounterFile(f *testing.F) {
	f.Add("4:memory:/docker/abc\n0::/x\n", v1Container+v2Spaces)
	f.Fuzz(func(t *testing.T, own, mounts string) {
		file, err := counterFile([]byte(own), []byte(mounts))
		if err == nil && !strings.HasSuffix(file, "/"+eventsFile) && !strings.HasSuffix(file, "/"+oomControlFile) && file != eventsFile && file != oomControlFile {
			t.Errorf("%q", file)
		}
	})
}
