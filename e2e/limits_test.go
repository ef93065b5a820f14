package e2e

import (
	"os/exec"
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
