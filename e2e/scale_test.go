package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// untouched checks that no request failed and no connection was closed.
func untouched(t *testing.T, r *load.Report, conns uint64) {
	t.Helper()
	if r.Failures.Total() > 0 || r.Dials != conns || r.Closes != (load.Closes{}) {
		t.Errorf("%d requests: failures %v, %d dials, closes %+v; first: %+v",
			r.Requests, r.Failures, r.Dials, r.Closes, r.First[:min(len(r.First), 5)])
	}
}

// steps sends sig until the pool, of size now, has size to; each must have been applied
// before the next one, as the kernel keeps one of each kind.
func steps(s *testkit.Service, sig syscall.Signal, now, to int) {
	by := 1
	if to < now {
		by = -1
	}
	for ; now != to; now += by {
		n := s.Reports()
		s.Signal(sig)
		s.AwaitAfter(n, fmt.Sprintf("STATUS=%d of %d workers ready", now+by, now+by))
	}
}

// TestScaleBySignals: more and fewer workers under busy keep-alive clients, who notice
// nothing, and whose connections reach the new workers.
func TestScaleBySignals(t *testing.T) {
	const conns = 32
	s, socket := reloadable(t, testkit.Options{Set: []string{"http.worker_header=true"}})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	for range times(3, 20) {
		answers(t, g, 100)
		steps(s, syscall.SIGTTIN, 2, 5)
		ctx, cancel := context.WithTimeout(context.Background(), testkit.Limit)
		defer cancel()
		if err := g.Wait(ctx, func(p load.Progress) bool { return len(p.Workers) >= 5 }); err != nil {
			t.Errorf("%v: only %v answered", err, g.Progress().Workers)
		}
		if p := status1(t, socket).Pools[0]; p.Size != 5 || p.Configured != 2 || len(p.Slots) != 5 {
			t.Errorf("%+v", p)
		}
		steps(s, syscall.SIGTTOU, 5, 2)
		answers(t, g, 100)
	}
	if err := testkit.Await(func() bool { return len(s.Workers()) == 2 }); err != nil {
		t.Errorf("workers: %v", s.Workers())
	}
	untouched(t, end(), conns)
}

// TestScaleUpAndDown goes to one worker by signals and to eight by the command, again
// and again, under busy keep-alive clients.
func TestScaleUpAndDown(t *testing.T) {
	const conns = 64
	s, socket := reloadable(t, testkit.Options{Workers: 8})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	for range times(3, 30) {
		answers(t, g, 200)
		steps(s, syscall.SIGTTOU, 8, 1)
		answers(t, g, 200)
		s.Signal(syscall.SIGTTOU) // changes nothing
		if err := testkit.Await(func() bool {
			out, _ := command(t, socket, "events")
			return strings.HasSuffix(strings.TrimSpace(out), "pool main has 1 worker already: nothing changed")
		}); err != nil {
			t.Error(err)
		}
		if out, code := command(t, socket, "scale", "8"); code != 0 || out != "pool main has 8 workers\n" {
			t.Fatalf("%d: %s", code, out)
		}
		if got := len(s.Workers()); got != 8 {
			t.Errorf("the command has ended, and %d workers run", got)
		}
	}
	out, code := command(t, socket, "scale", "-6", "--json")
	var result admin.ScaleResult
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 || result.Before != 8 || result.Workers != 2 {
		t.Errorf("%d, %v: %s", code, err, out)
	}
	if got := len(s.Workers()); got != 2 {
		t.Errorf("the command has ended, and %d workers run", got)
	}
	untouched(t, end(), conns)
}

// TestOneWorkerStays: TTOU leaves one worker, and says that it did nothing.
func TestOneWorkerStays(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Workers: 1})
	before := s.Workers()
	s.Signal(syscall.SIGTTOU)
	if err := testkit.Await(func() bool {
		out, _ := command(t, socket, "events")
		return strings.Contains(out, "pool main has 1 worker already: nothing changed")
	}); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(s.Workers()); got != fmt.Sprint(before) {
		t.Errorf("workers were %v and are %s", before, got)
	}
}

func TestScaleRefuses(t *testing.T) {
	_, socket := reloadable(t, testkit.Options{})
	for _, c := range []struct {
		args []string
		exit int
		word string
	}{
		{[]string{"scale", "0"}, ipc.ExitUsage, "0 is no size"},
		{[]string{"scale", "-2"}, ipc.ExitUsage, "0 is no size"},
		{[]string{"scale", "-3"}, ipc.ExitUsage, "-1 is no size"},
		{[]string{"scale", "1025"}, ipc.ExitUsage, "1025 is no size"},
		{[]string{"scale", "two"}, ipc.ExitUsage, `"two"`},
		{[]string{"scale"}, ipc.ExitUsage, "needs one size"},
		{[]string{"scale", "3", "4"}, ipc.ExitUsage, "needs one size"},
		{[]string{"scale", "3", "--pool", "none"}, ipc.ExitUsage, `no pool "none"`},
		{[]string{"scale", "2"}, 0, "pool main has 2 workers already"},
	} {
		if out, code := command(t, socket, c.args...); code != c.exit || !strings.Contains(out, c.word) {
			t.Errorf("%v: %d: %s", c.args, code, out)
		}
	}
	if p := status1(t, socket).Pools[0]; p.Size != 2 || len(p.Slots) != 2 {
		t.Errorf("%+v", p)
	}
}

// TestScaleToWorkersThatCannotStart: the command says in the worker's words why, and the
// pool is as it was, while clients notice nothing.
func TestScaleToWorkersThatCannotStart(t *testing.T) {
	const conns = 16
	// Up to slot 1 it is our worker; what comes later fails in different ways.
	worker := filepath.Join(testkit.Programs(t), "preforkd-worker")
	wrapper := program(t, `#!/bin/sh
case $PREFORKD_SLOT in
[01]) exec `+worker+` ;;
2) echo the reason >&2; exit 7 ;;
*) exec sleep 1000 ;;
esac
`)
	s, socket := reloadable(t, testkit.Options{Set: []string{"worker.kind=preforkd", "worker.command=" + wrapper, "timeouts.boot=20s"}})
	before := fmt.Sprint(s.Workers())
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	answers(t, g, 100)
	for range 2 {
		out, code := command(t, socket, "scale", "+2")
		if code != ipc.ExitRolledBack || !strings.Contains(out, "exit status 7") || !strings.Contains(out, "the reason") ||
			!strings.Contains(out, "still has 2 workers") {
			t.Errorf("%d: %s", code, out)
		}
		if got := fmt.Sprint(s.Workers()); got != before {
			t.Errorf("workers were %s and are %s", before, got)
		}
	}
	if p := status1(t, socket).Pools[0]; p.Size != 2 || len(p.Slots) != 2 {
		t.Errorf("%+v", p)
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
}

// TestScaleDuringReload: one operation at a time; what waits is applied afterwards, and
// the size outlives reloads until the configured one changes.
func TestScaleDuringReload(t *testing.T) {
	o := testkit.Options{Config: "workers: 2\nlisten: [\"127.0.0.1:0\"]\n", Bare: true, Set: []string{"reload.bake=1s"}}
	s, socket := reloadable(t, o)
	reload := reloadUnderWay(t, socket)
	s.Signal(syscall.SIGTTIN)
	if out, code := command(t, socket, "scale", "+1", "--no-wait"); code != ipc.ExitTryAgain || !strings.Contains(out, "a reload is under way") {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := command(t, socket, "scale", "+1"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	if err := reload.Wait(); err != nil {
		t.Error(err)
	}
	if err := testkit.Await(func() bool { return status1(t, socket).Pools[0].Size == 4 }); err != nil {
		t.Error(err)
	}
	size := func(want, configured int) {
		t.Helper()
		if out, code := command(t, socket, "reload"); code != 0 {
			t.Errorf("%d: %s", code, out)
		}
		if p := status1(t, socket).Pools[0]; p.Size != want || p.Configured != configured || len(s.Workers()) != want {
			t.Errorf("%+v, want %d of %d", p, want, configured)
		}
	}
	size(4, 2)
	write(t, s.Config, "workers: 3\nlisten: [\"127.0.0.1:0\"]\n")
	size(3, 3)
}

// TestStopDuringScale: the service stops, and whoever waits is told.
func TestStopDuringScale(t *testing.T) {
	worker := filepath.Join(testkit.Programs(t), "preforkd-worker")
	wrapper := program(t, "#!/bin/sh\ncase $PREFORKD_SLOT in [01]) exec "+worker+" ;; esac\nexec sleep 1000\n")
	s, socket := reloadable(t, testkit.Options{Set: []string{"worker.kind=preforkd", "worker.command=" + wrapper}})
	scale := exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), "scale", "+1", "--admin", socket)
	if err := scale.Start(); err != nil {
		t.Fatal(err)
	}
	s.Await("STATUS=2 of 3 workers ready")
	s.Signal(syscall.SIGTERM)
	if code := s.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if err := scale.Wait(); exitStatus(err) != "69" {
		t.Errorf("the command ended with %v", err)
	}
}
