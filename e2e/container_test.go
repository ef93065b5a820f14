package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
	"preforkd/internal/testkit/box"
)

// image builds the image of the programs and says how large it is.
func image(t *testing.T, table *rows) string {
	t.Helper()
	base := box.Base(t)
	root := stage(t)
	tag := box.Build(t, filepath.Dir(root), "--file", filepath.Join(testkit.Root(t), "Containerfile"),
		"--build-arg", "BASE="+base, "--build-arg", "BUILDER="+base, "--build-arg", "PREBUILT="+filepath.Base(root))
	size := func(tag string) int {
		t.Helper()
		n, err := strconv.Atoi(strings.TrimSpace(box.Podman(t, "image", "inspect", "--format", "{{.Size}}", tag).OK(t)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	library, err := os.Stat(filepath.Join(root, "usr/lib/preforkd/libonnxruntime.so.1"))
	if err != nil {
		t.Fatal(err)
	}
	own := size(tag) - size(base)
	table.note("image: %.1f MB beside its base, %.1f MB of it ONNX Runtime", float64(own)/1e6, float64(library.Size())/1e6)
	return tag
}

// options of every container: an address of the kernel's choice on the machine's loopback,
// and no health checks, which podman leaves to a systemd that is not there.
func options(t *testing.T, more ...string) []string {
	return append([]string{
		"--network", "host", "--no-healthcheck", "--read-only", "--cap-drop=all", "--security-opt", "no-new-privileges",
		"--volume", filepath.Join(testkit.Root(t), "models") + ":/models:ro",
		"--env", "PREFORKD_LISTEN=127.0.0.1:0", "--env", "PREFORKD_OPS_LISTEN=127.0.0.1:0",
		"--env", "PREFORKD_RELOAD_BAKE=100ms", "--env", "PREFORKD_RELOAD_TRIAL=100ms",
	}, more...)
}

// writable are the directories that the service writes. podman's own file system at /run would
// hide whom the image lets write below.
var writable = []string{"--read-only-tmpfs=false", "--tmpfs", "/run/preforkd", "--tmpfs", "/var/cache/preforkd"}

// statusIn waits until every worker in c is ready.
func statusIn(t *testing.T, c *box.Container) (st admin.Status) {
	t.Helper()
	var last box.Result
	if testkit.Await(func() bool {
		last = c.Exec("preforkd", "status", "--json")
		return last.Exit == 0 && json.Unmarshal([]byte(last.Out), &st) == nil && ready(st)
	}) != nil {
		t.Fatalf("%d: %s", last.Exit, last.Out)
	}
	return st
}

func ready(st admin.Status) bool {
	for _, p := range st.Pools {
		if len(p.Slots) == 0 || slices.ContainsFunc(p.Slots, func(s admin.Slot) bool { return s.State != "ready" }) {
			return false
		}
	}
	return len(st.Pools) > 0
}

// TestContainer runs the image as an orchestrator would.
func TestContainer(t *testing.T) {
	table := tableOf(t)
	image := image(t, table)
	c := box.Start(t, options(t, append([]string{"--memory", "300m", "--cpus", "0.5"}, writable...)...), image)
	st := statusIn(t, c)
	address := st.Listen[0]
	pid := c.PID()

	want := "[CMD /usr/bin/preforkd health] SIGTERM 65532:65532 [/usr/bin/preforkd] [serve]"
	got := box.Podman(t, "image", "inspect", "--format", "{{.HealthCheck.Test}} {{.Config.StopSignal}} {{.User}} {{.Config.Entrypoint}} {{.Config.Cmd}}", image).OK(t)
	if strings.TrimSpace(got) != want {
		t.Errorf("the image is %s want %s", got, want)
	}

	t.Run("first process", func(t *testing.T) {
		for file, want := range map[string]string{"comm": `^preforkd-anchor\n$`, "status": `(?m)^Uid:\t65532\t65532\t65532\t65532$`} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil || !regexp.MustCompile(want).Match(text) {
				t.Errorf("%s: %v\n%s", file, err, text)
			}
		}
		if st.Pools[0].Size != 1 {
			t.Errorf("%d workers for half a core", st.Pools[0].Size)
		}
		if code, text := post(t, "http://"+address+"/predict", body(sample)); code != 200 {
			t.Errorf("%d: %s", code, text)
		}
	})
	t.Run("upgrades and a death", func(t *testing.T) { changes(t, c, address, table) })
	t.Run("orphans", func(t *testing.T) { orphans(t, c) })
	t.Run("health", func(t *testing.T) {
		c.Exec("/usr/bin/preforkd", "health").OK(t)
	})
	if got := c.PID(); got != pid {
		t.Errorf("the container was started again: %d was %d", got, pid)
	}
	t.Run("stop", func(t *testing.T) {
		const n = 6
		done := inFlight(t, &testkit.Service{URL: "http://" + address}, n, 8000)
		box.Podman(t, "stop", "--time", "30", c.Name).OK(t)
		for range n {
			if err := <-done; err != nil {
				t.Errorf("lost: %v", err)
			}
		}
		if status := c.Wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		table.note("container: stopped with %d requests in flight, all of them answered, exit status %d", n, c.Wait())
	})
	t.Run("little memory", func(t *testing.T) { littleMemory(t, image) })
	t.Run("nothing to write", func(t *testing.T) { nothingToWrite(t, image) })
}

// changes upgrades the service in c, well and badly, and kills its supervisor, under load.
func changes(t *testing.T, c *box.Container, address string, table *rows) {
	under := func(what string, do func()) {
		t.Helper()
		g, end := stormAt(t, address, load.Options{Conns: 4, Keepalive: true, Think: 10 * time.Millisecond, Timeout: testkit.Limit})
		_, endFresh := stormAt(t, address, load.Options{Conns: 1, Think: 20 * time.Millisecond, Timeout: testkit.Limit})
		answers(t, g, 20)
		do()
		answers(t, g, 20)
		kept, fresh := end(), endFresh()
		table.add("container: "+what, kept, fresh)
		untouched(t, kept, 4)
		if fresh.Failures.Total() > 0 {
			t.Errorf("%s: %v; %+v", what, fresh.Failures, fresh.First)
		}
	}
	before := statusIn(t, c)
	under("upgrade", func() {
		if out := c.Exec("preforkd", "upgrade").OK(t); !strings.Contains(out, "generation 2 serves") {
			t.Errorf("upgrade: %s", out)
		}
	})
	under("bad upgrade", func() {
		if r := c.Exec("preforkd", "upgrade", "/usr/bin/false"); r.Exit != ipc.ExitRolledBack || !strings.Contains(r.Out, "exit status 1") {
			t.Errorf("a bad upgrade: %d, %s", r.Exit, r.Out)
		}
	})
	upgraded := statusIn(t, c)
	if upgraded.PID == before.PID || upgraded.Generation != 2 {
		t.Errorf("generation %d, supervisor %d, before %d", upgraded.Generation, upgraded.PID, before.PID)
	}
	under("kill -9 of the supervisor", func() {
		c.Exec("sh", "-c", fmt.Sprintf("kill -9 %d", upgraded.PID)).OK(t)
		var after admin.Status
		if testkit.Await(func() bool { after = statusIn(t, c); return after.PID != upgraded.PID }) != nil {
			t.Errorf("supervisor %d was killed, %d is there", upgraded.PID, after.PID)
		}
	})
}

// orphans makes 20 and waits until the first process has taken them in and buried them.
func orphans(t *testing.T, c *box.Container) {
	count := func() (running, zombies int) {
		t.Helper()
		for _, child := range testkit.Children(t, c.PID()) {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
			if err != nil {
				continue // it has just been buried
			}
			if strings.Contains(string(text), "(sleep) ") {
				running++
			}
			if strings.Contains(string(text), ") Z ") {
				zombies++
			}
		}
		return running, zombies
	}
	const n = 20
	c.Exec("sh", "-c", "for i in $(seq 20); do sleep 600 >/dev/null 2>&1 & done").OK(t)
	if testkit.Await(func() bool { running, _ := count(); return running == n }) != nil {
		running, _ := count()
		t.Fatalf("%d of %d orphans came to the first process", running, n)
	}
	for _, child := range testkit.Children(t, c.PID()) {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child)); err == nil && string(comm) == "sleep\n" {
			kill(t, child, syscall.SIGTERM)
		}
	}
	if testkit.Await(func() bool { running, zombies := count(); return running == 0 && zombies == 0 }) != nil {
		running, zombies := count()
		t.Errorf("%d orphans run, %d zombies", running, zombies)
	}
}

// littleMemory: as many workers as the limit allows, and none where it does not allow one.
func littleMemory(t *testing.T, image string) {
	r := box.Run(t, options(t, append([]string{"--memory", "64m"}, writable...)...), image)
	if r.Exit != ipc.ExitConfig || !strings.Contains(r.Out, "one worker is planned with 65 MiB (64 MiB, and 3 times the 0 MiB of its model files), and the memory limit leaves ") || !strings.Contains(r.Out, "try: raise the limit") {
		t.Errorf("%d: %s", r.Exit, r.Out)
	}
	c := box.Start(t, options(t, append([]string{"--memory", "150m"}, writable...)...), image)
	if st := statusIn(t, c); st.Pools[0].Size != 1 {
		t.Errorf("%d workers in 150 MiB", st.Pools[0].Size)
	}
}

// nothingToWrite: without a cache the service does not start, and says what to mount; without
// a directory for the admin socket it serves, but takes no orders.
func nothingToWrite(t *testing.T, image string) {
	bare := options(t, "--read-only-tmpfs=false")
	r := box.Run(t, bare, image)
	if r.Exit != ipc.ExitPermission || !strings.Contains(r.Out, "try: let this user write /var/cache/preforkd (in a container: mount a volume or a tmpfs there)") {
		t.Errorf("%d: %s", r.Exit, r.Out)
	}
	c := box.Start(t, append(bare, "--tmpfs", "/var/cache/preforkd", "--env", "PREFORKD_LISTEN=unix:/var/cache/preforkd/http.sock"), image)
	var last box.Result
	if testkit.Await(func() bool {
		last = c.Exec("curl", "-sS", "--unix-socket", "/var/cache/preforkd/http.sock", "-d", body(sample), "http://preforkd/predict")
		return last.Exit == 0 && strings.Contains(last.Out, `"prediction"`)
	}) != nil {
		t.Errorf("%d: %s", last.Exit, last.Out)
	}
	if r := c.Exec("preforkd", "status"); r.Exit != ipc.ExitUnavailable || !strings.Contains(r.Out, "/run/preforkd/admin.sock") {
		t.Errorf("%d: %s", r.Exit, r.Out)
	}
}
