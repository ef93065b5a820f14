package e2e

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// TestLimitsChangeInPlace takes cores away from a running service and gives them back: its pool
// follows, as by preforkd scale.
func TestLimitsChangeInPlace(t *testing.T) {
	taskset, err := exec.LookPath("taskset")
	if err != nil || runtime.NumCPU() < 2 {
		t.Skipf("skipped: needs two cores and taskset: %v", err)
	}
	f := begin(t, testkit.Options{Bare: true}, "workers: auto\nlisten: [\"127.0.0.1:0\"]\n")
	events := f.events()
	limited := func(cores string) {
		t.Helper()
		if out, code := run(t, taskset, "-a", "-c", "-p", cores, strconv.Itoa(f.Supervisor())); code != 0 {
			t.Fatalf("taskset: %d: %s", code, out)
		}
		events.await("limits", func(e admin.Event) bool { return e.Kind == "limits" })
	}
	all := status1(t, f.socket).Pools[0].Size
	limited("0")
	if err := testkit.Await(func() bool { p := status1(t, f.socket).Pools[0]; return p.Size == 1 && len(p.Slots) == 1 }); err != nil {
		t.Errorf("%v: %+v", err, status1(t, f.socket).Pools[0])
	}
	limited("0-" + strconv.Itoa(runtime.NumCPU()-1))
	if err := testkit.Await(func() bool { return status1(t, f.socket).Pools[0].Size == all }); err != nil {
		t.Errorf("%v: %+v", err, status1(t, f.socket).Pools[0])
	}
}

// TestPoolGrowsWhenMeasured: within a limit that carries one worker as it is planned from its files, a
// second one is started when the first has been measured, as it takes less.
func TestPoolGrowsWhenMeasured(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("skipped: needs two cores")
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	o := testkit.Options{
		Wrap: within(t, memoryCgroup(t, 268<<20)), Program: filepath.Join(testkit.PlainPrograms(t), "preforkd"), // the race detector takes more
		Bare: true, Admin: socket, Listen: []string{"127.0.0.1:0"}, Set: []string{"listen=127.0.0.1:0", "workers=auto"},
	}
	testkit.Start(t, o)
	if p := status1(t, socket).Pools[0]; p.Size != 1 {
		t.Fatalf("%+v", p)
	}
	if err := testkit.Await(func() bool { p := status1(t, socket).Pools[0]; return p.Size == 2 && p.Configured == 2 }); err != nil {
		t.Errorf("%v: %+v", err, status1(t, socket).Pools[0])
	}
}
