package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// memoryCgroup makes a memory cgroup with a limit, of whichever version the machine has,
// and returns its directory. Where this test may not do that there is no OOM kill to be
// had, and what is left of the logic is tested in packages supervisor and machine.
func memoryCgroup(t *testing.T, limit int) string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skipf("skipped: no cgroups: %v", err)
	}
	name := fmt.Sprintf("preforkd-test-%d", os.Getpid())
	for line := range strings.Lines(string(own)) {
		if _, within, ok := strings.Cut(strings.TrimSpace(line), ":memory:"); ok {
			dir := filepath.Join("/sys/fs/cgroup/memory", within, name)
			makeCgroup(t, dir, map[string]int{"memory.limit_in_bytes": limit})
			return dir
		}
	}
	// Below the root: a cgroup that has processes of its own gives its children no controller.
	dir := filepath.Join("/sys/fs/cgroup", name)
	_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0)
	makeCgroup(t, dir, map[string]int{"memory.max": limit, "memory.swap.max": 0})
	return dir
}

func makeCgroup(t *testing.T, dir string, limits map[string]int) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("skipped: no cgroup can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := testkit.Await(func() bool { return os.Remove(dir) == nil }); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	})
	for file, n := range limits {
		err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, n), 0)
		if err != nil && !strings.Contains(file, "swap") { // a kernel without swap has no such file
			t.Skipf("skipped: no memory can be limited here: %v", err)
		}
	}
}

// within is a testkit.Options.Wrap: the service runs in the cgroup dir.
func within(t *testing.T, dir string) []string {
	t.Helper()
	return []string{program(t, "#!/bin/sh\necho $$ >\"$1\"/cgroup.procs || exit 1\nshift\nexec \"$@\"\n"), dir}
}

// TestOOMKillIsNamed has a request ask for more memory than the service may use: the kernel
// kills its worker, and events, status and log say so. A worker that somebody else
// kills is not put down to memory.
func TestOOMKillIsNamed(t *testing.T) {
	const words = "killed by signal 9; the memory cgroup counts an OOM kill"
	o := testkit.Options{Wrap: within(t, memoryCgroup(t, 256<<20)), Set: []string{"timeouts.request=10m"}}
	f := begin(t, o, "log: {level: info}\n")
	events := f.events()
	crash := func(e admin.Event) bool { return e.Kind == "crash" }

	kill(t, f.worker(1, 0), syscall.SIGKILL)
	if e := events.await("a crash", crash); e.Text != "crash: killed by signal 9" || e.Model != "" {
		t.Errorf("%+v", e)
	}
	f.whole()

	// 8,500² numbers of 4 bytes are 275 MiB.
	resp, err := fresh.Post(f.URL+"/v2/models/square/infer", "application/json", strings.NewReader(sized(8500)))
	if err == nil {
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		t.Fatalf("%d: %s", resp.StatusCode, body)
	}
	e := events.await("a crash", crash)
	if e.Text != "memory: "+words || e.Model != "square" || e.Request == "" {
		t.Errorf("%+v", e)
	}
	f.whole()
	last := ""
	for _, s := range status1(t, f.socket).Pools[0].Slots {
		if s.Index == *e.Slot {
			last = s.LastReason + ": " + s.LastExit
		}
	}
	if last != "memory: "+words {
		t.Errorf("last exit %q", last)
	}
	if out, code := command(t, f.socket, "status"); code != 0 || !strings.Contains(out, words) {
		t.Errorf("%d: %s", code, out)
	}
	if text := f.LogText(); !strings.Contains(text, `reason=memory exit="`+words+`"`) {
		t.Errorf("%s", text)
	}
	if got, text := get(t, f.URL+"/readyz"); got != http.StatusOK {
		t.Errorf("%d: %s", got, text)
	}
}

// TestOOMKillAtBoot: a service that does not fit ends with the reason and what to do.
func TestOOMKillAtBoot(t *testing.T) {
	wrap := within(t, memoryCgroup(t, 192<<20))
	eater := program(t, "#!/bin/sh\nx=x; while :; do x=$x$x; done\n")
	s := testkit.Launch(t, testkit.Options{Wrap: wrap, Workers: 1, Set: []string{"worker.command=" + eater}})
	if status := s.Wait(); status != ipc.ExitBoot {
		t.Errorf("exit status %d", status)
	}
	if text := s.LogText(); !strings.Contains(text, "the memory cgroup counts an OOM kill") || !strings.Contains(text, "try: raise the memory limit") {
		t.Errorf("%s", text)
	}
}
