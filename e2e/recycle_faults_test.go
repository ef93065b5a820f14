package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// TestMemoryLimitBelowWorkUnderLoad: a new worker is below the limit, and beyond it as soon as
// it serves. Workers are not replaced without end: the limit is given up, with both numbers.
func TestMemoryLimitBelowWorkUnderLoad(t *testing.T) {
	socket, end := outgrowing(t)
	eventsSay(t, socket, "recycle", "recycle.memory is ", "a new worker has ", "no worker is recycled for memory until the next reload")
	if n := recycled(t, socket, "memory"); n < 1 || n > 4 {
		t.Errorf("%d were recycled before", n)
	}
	untouched(t, end(), 4)
	if got := status1(t, socket).Pools[0].Notice; !strings.Contains(got, "a new worker has ") {
		t.Error(got)
	}
}

// eventsSay waits for an event that has all of words.
func eventsSay(t *testing.T, socket string, words ...string) {
	t.Helper()
	var out string
	if err := testkit.Await(func() bool {
		out, _ = command(t, socket, "events")
		for line := range strings.Lines(out) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				return true
			}
		}
		return false
	}); err != nil {
		t.Errorf("%v: no event says %q:\n%s", err, words, out)
	}
}

// whole checks that each slot of a pool of n has one ready worker and no more run.
func whole(t *testing.T, s *testkit.Service, socket string, n int) {
	t.Helper()
	var p admin.Pool
	if err := testkit.Await(func() bool {
		p = status1(t, socket).Pools[0]
		ready := 0
		for _, sl := range p.Slots {
			if sl.State == "ready" {
				ready++
			}
		}
		return ready == n && len(p.Slots) == n
	}); err != nil {
		t.Errorf("%v: %+v", err, p)
	}
	if got := len(s.Workers()); got != n {
		t.Errorf("%d workers run, not %d", got, n)
	}
}

// neverFewer makes sure that the supervisor never told of fewer ready workers than n.
func neverFewer(t *testing.T, s *testkit.Service, since, n int) {
	t.Helper()
	for _, text := range s.ReportsSince(since) {
		var ready, of int
		_, after, ok := strings.Cut(text, "STATUS=")
		if _, err := fmt.Sscanf(after, "%d of %d workers ready", &ready, &of); ok && err == nil && ready < n {
			t.Errorf("fewer than %d were ready: %s", n, text)
		}
	}
}

// TestRecycleUnderLoad: busy keep-alive clients do not notice that their workers reach a
// limit all the time, and there are never fewer ready workers than the pool has.
func TestRecycleUnderLoad(t *testing.T) {
	for _, c := range []struct {
		reason, set string
		times       int
		think       time.Duration
	}{
		{"requests", "recycle.requests=200", times(12, 100), 0},
		{"age", "recycle.age=300ms", times(8, 100), think},
	} {
		t.Run(c.reason, func(t *testing.T) {
			s, socket := reloadable(t, testkit.Options{Ops: "127.0.0.1:0", Set: []string{c.set, "recycle.jitter=50"}})
			since := s.Reports()
			g, end := storm(t, s, load.Options{Conns: clients, Keepalive: true, Think: c.think})
			awaitRecycled(t, socket, c.reason, c.times)
			answers(t, g, clients)
			now := numbers(t, operations(t, socket))
			if n := now[`preforkd_worker_recycles_total{reason="`+c.reason+`"}`]; n < float64(c.times) {
				t.Errorf("the metric has %v", n)
			}
			untouched(t, end(), clients)
			neverFewer(t, s, since, 2)
		})
	}
}

// later is a worker that, if it is not the first of its slot, waits at the gate that path
// may be, and runs then.
func later(t *testing.T, path, then string) string {
	t.Helper()
	worker := filepath.Join(testkit.Programs(t), "preforkd-worker")
	first := filepath.Join(t.TempDir(), "first")
	return program(t, `#!/bin/sh
if mkdir `+first+`.$PREFORKD_SLOT 2>/dev/null; then exec `+worker+`; fi
[ ! -p `+path+` ] || read -r _ 2>/dev/null <`+path+`
`+then+`
exec `+worker+`
`)
}

// TestReplacementCannotStart: the old worker stays, clients notice nothing, and it is not
// tried again at once.
func TestReplacementCannotStart(t *testing.T) {
	wrapper := later(t, "/nowhere", "echo the reason >&2; exit 7")
	s, socket := reloadable(t, testkit.Options{Set: []string{"worker.kind=preforkd", "worker.command=" + wrapper, "recycle.requests=200"}})
	before := fmt.Sprint(s.Workers())
	g, end := storm(t, s, load.Options{Conns: 16, Keepalive: true})
	eventsSay(t, socket, "recycle", "failed: its replacement failed", "exit status 7", "the reason")
	answers(t, g, 2000) // far beyond the limit: it waits all the same
	if out, _ := command(t, socket, "events"); strings.Count(out, "failed: its replacement failed") != 1 {
		t.Errorf("a replacement that fails is tried again at once:\n%s", out)
	}
	out, code := command(t, socket, "restart", "--all")
	if code != ipc.ExitRolledBack || !strings.Contains(out, "slot 0 of pool main keeps its worker") || !strings.Contains(out, "the reason") {
		t.Errorf("%d: %s", code, out)
	}
	answers(t, g, 100)
	untouched(t, end(), 16)
	if got := fmt.Sprint(s.Workers()); got != before {
		t.Errorf("workers were %s and are %s", before, got)
	}
	if n := recycled(t, socket, "requests"); n != 0 {
		t.Errorf("%d were recycled", n)
	}
}

// background is a command that runs; end waits for it.
func background(t *testing.T, socket string, args ...string) (end func() (out string, code int)) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), append(args, "--admin", socket)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (string, int) {
		_ = cmd.Wait() // its status says all
		return out.String(), cmd.ProcessState.ExitCode()
	}
}

// replacement waits until slot has a process that boots, and returns its pid.
func replacement(t *testing.T, socket string, slot int) (pid int) {
	t.Helper()
	if err := testkit.Await(func() bool {
		for _, sl := range status1(t, socket).Pools[0].Slots {
			if sl.Index == slot && (sl.State == "starting" || sl.State == "loading") {
				pid = sl.PID
				return true
			}
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestKillsWhileReplaced kills the new worker while it boots, the old one meanwhile, and
// both: only connections that a dead worker owned notice.
func TestKillsWhileReplaced(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new bool
		exit     int
		word     string
	}{
		{"new", false, true, ipc.ExitRolledBack, "slot 1 of pool main keeps its worker: its replacement failed"},
		{"old", true, false, 0, "restarted 1 worker of pool main"},
		{"both", true, true, ipc.ExitRolledBack, "slot 1 of pool main has no worker: its replacement failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			boots := newGate(t)
			s, socket := reloadable(t, testkit.Options{Set: []string{"worker.kind=preforkd", "worker.command=" + later(t, boots.path, ":"), "http.worker_header=true"}})
			g, end := storm(t, s, load.Options{Conns: clients, Think: think, Keepalive: true, KeepFailures: everyFailure})
			toll := newToll(t, strings.TrimPrefix(s.URL, "http://"))
			answers(t, g, 2*clients)
			old := status1(t, socket).Pools[0].Slots[1].PID
			restart := background(t, socket, "restart", "1")
			fresh := replacement(t, socket, 1)
			if c.old {
				toll.strike(old)
				if err := testkit.Await(func() bool { // the supervisor knows
					return !slices.ContainsFunc(status1(t, socket).Pools[0].Slots, func(sl admin.Slot) bool { return sl.PID == old })
				}); err != nil {
					t.Fatal(err)
				}
			}
			if c.new {
				kill(t, fresh, syscall.SIGKILL)
			} else {
				boots.open()
			}
			if out, code := restart(); code != c.exit || !strings.Contains(out, c.word) {
				t.Errorf("%d: %s", code, out)
			}
			if c.new {
				boots.open()
			}
			answers(t, g, 2*clients)
			whole(t, s, socket, 2)
			toll.noticed(end(), clients)
		})
	}
}

// TestStoppedWhileReplaced: a worker that hangs while it is replaced, or a replacement that
// does, is ended by its clock.
func TestStoppedWhileReplaced(t *testing.T) {
	t.Run("old", func(t *testing.T) {
		boots := newGate(t)
		s, socket := reloadable(t, testkit.Options{Set: []string{
			"worker.kind=preforkd", "worker.command=" + later(t, boots.path, ":"), "http.worker_header=true", "timeouts.drain=2s", "timeouts.request=2s",
		}})
		g, end := storm(t, s, load.Options{Conns: clients, Think: think, Keepalive: true, KeepFailures: everyFailure, Timeout: testkit.Limit})
		toll := newToll(t, strings.TrimPrefix(s.URL, "http://"))
		answers(t, g, 2*clients)
		old := status1(t, socket).Pools[0].Slots[1].PID
		restart := background(t, socket, "restart", "1")
		replacement(t, socket, 1)
		toll.freeze(old)
		boots.open()
		if out, code := restart(); code != 0 || !strings.Contains(out, "restarted 1 worker of pool main") {
			t.Errorf("%d: %s", code, out)
		}
		answers(t, g, 2*clients)
		whole(t, s, socket, 2)
		toll.noticed(end(), clients)
	})
	t.Run("new", func(t *testing.T) {
		boots := newGate(t)
		s, socket := reloadable(t, testkit.Options{Set: []string{"worker.kind=preforkd", "worker.command=" + later(t, boots.path, ":"), "timeouts.boot=2s"}})
		before := fmt.Sprint(s.Workers())
		g, end := storm(t, s, load.Options{Conns: clients, Think: think, Keepalive: true})
		restart := background(t, socket, "restart", "0")
		fresh := replacement(t, socket, 0)
		kill(t, fresh, syscall.SIGSTOP)
		boots.open()
		if out, code := restart(); code != ipc.ExitRolledBack || !strings.Contains(out, "not ready within timeouts.boot (2s)") {
			t.Errorf("%d: %s", code, out)
		}
		answers(t, g, clients)
		untouched(t, end(), clients)
		if got := fmt.Sprint(s.Workers()); got != before {
			t.Errorf("workers were %s and are %s", before, got)
		}
	})
}

// TestRestartDuringOperations: a restart waits for a reload, and a reload and a change of size
// for a restart.
func TestRestartDuringOperations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate")
	s, socket := reloadable(t, testkit.Options{Set: []string{"reload.bake=1s", "worker.kind=preforkd", "worker.command=" + later(t, path, ":")}})
	g, end := storm(t, s, load.Options{Conns: clients, Think: think, Keepalive: true})
	reload := reloadUnderWay(t, socket)
	if out, code := command(t, socket, "restart", "0", "--no-wait"); code != ipc.ExitTryAgain || !strings.Contains(out, "a reload is under way") {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := command(t, socket, "restart", "0"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	if err := reload.Wait(); err != nil {
		t.Error(err)
	}
	st := status1(t, socket)
	if st.Generation != 2 || st.Pools[0].Slots[0].Recycled != "asked" || st.Pools[0].Slots[0].Generation != 2 {
		t.Errorf("%+v", st)
	}
	boots := gateAt(t, path)
	restart := background(t, socket, "restart", "1")
	replacement(t, socket, 1)
	for _, args := range [][]string{{"reload"}, {"scale", "+1"}, {"restart", "0"}} {
		if out, code := command(t, socket, append(args, "--no-wait")...); code != ipc.ExitTryAgain || !strings.Contains(out, "the replacement of a worker is under way") {
			t.Errorf("%v: %d: %s", args, code, out)
		}
	}
	s.Signal(syscall.SIGHUP)
	scale := background(t, socket, "scale", "+1")
	boots.open()
	if out, code := restart(); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := scale(); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	if err := testkit.Await(func() bool { return status1(t, socket).Generation == 3 }); err != nil {
		t.Error(err)
	}
	answers(t, g, clients)
	untouched(t, end(), clients)
}

// TestRestartOfSlotThatWaits: a slot without a worker, which waits for its back-off, gets
// one now.
func TestRestartOfSlotThatWaits(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	wrapper := later(t, "/nowhere", "if test -e "+broken+" && test $PREFORKD_SLOT = 1; then exit 7; fi")
	s, socket := reloadable(t, testkit.Options{Set: []string{
		"worker.kind=preforkd", "worker.command=" + wrapper, "worker.max_crashes=1", "worker.crash_window=1h",
	}})
	write(t, broken, "")
	kill(t, status1(t, socket).Pools[0].Slots[1].PID, syscall.SIGKILL)
	if err := testkit.Await(func() bool { return status1(t, socket).Pools[0].Slots[1].State == "failed" }); err != nil {
		t.Fatal(err)
	}
	if out, code := command(t, socket, "restart", "1"); code != ipc.ExitRolledBack || !strings.Contains(out, "slot 1 of pool main has no worker") {
		t.Errorf("%d: %s", code, out)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if out, code := command(t, socket, "restart", "1"); code != 0 || !strings.Contains(out, "restarted 1 worker of pool main") {
		t.Errorf("%d: %s", code, out)
	}
	whole(t, s, socket, 2)
}

// TestStopWhileReplaced: the service stops, and whoever waits is told.
func TestStopWhileReplaced(t *testing.T) {
	boots := newGate(t)
	s, socket := reloadable(t, testkit.Options{Set: []string{"worker.kind=preforkd", "worker.command=" + later(t, boots.path, ":")}})
	restart := background(t, socket, "restart", "--all")
	replacement(t, socket, 0)
	waits := background(t, socket, "restart", "1")
	s.Signal(syscall.SIGTERM)
	boots.open()
	if code := s.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, end := range []func() (string, int){restart, waits} {
		if out, code := end(); code != ipc.ExitUnavailable {
			t.Errorf("%d: %s", code, out)
		}
	}
}
