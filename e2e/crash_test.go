package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// pythonWorker writes a worker that is not ours: a Python program that knows only
// systemd's protocol. body may call notify("READY=1").
func pythonWorker(t *testing.T, body string) string {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("skipped: python3 is not installed")
	}
	return program(t, `#!/usr/bin/env python3
import os, signal, socket, sys, time
def notify(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text.encode(), "\0" + os.environ["NOTIFY_SOCKET"][1:])
`+body)
}

// TestCrashesLeaveNothingBehind kills workers a hundred times: the supervisor has as many
// descriptors, threads, children and goroutines as before, and no zombie.
func TestCrashesLeaveNothingBehind(t *testing.T) {
	o := testkit.Options{Set: []string{"worker.max_crashes=1000", "worker.max_backoff=1ms"}}
	fresh := goroutines(t, testkit.Start(t, o))
	s := testkit.Start(t, o)
	before := testkit.Descriptors(t, s.PID)
	for i := range times(100, 500) {
		n := s.Reports()
		kill(t, s.Workers()[i%2], syscall.SIGKILL)
		n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
		s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	}
	if after := testkit.Descriptors(t, s.PID); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	if got := s.Workers(); len(got) != 2 {
		t.Errorf("children %v", got)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.PID))
	if err != nil || len(threads) > 24 {
		t.Errorf("%d threads, %v", len(threads), err)
	}
	if got := goroutines(t, s); got > fresh {
		t.Errorf("%d goroutines, a fresh supervisor has %d", got, fresh)
	}
}

// goroutines ends a supervisor (ABRT), which prints the stacks of all goroutines, and returns
// how many are in our code: the runtime starts its own as it needs them.
func goroutines(t *testing.T, s *testkit.Service) (n int) {
	t.Helper()
	for _, pid := range s.Workers() { // a zombie has no executable
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
			t.Errorf("child %d: %v", pid, err)
		}
	}
	s.Signal(syscall.SIGABRT)
	s.Wait()
	for stack := range strings.SplitSeq(s.LogText(), "\n\n") {
		if strings.HasPrefix(stack, "goroutine ") && strings.Contains(stack, "preforkd/internal/") {
			n++
		}
	}
	if n == 0 {
		t.Fatalf("no stacks in\n%s", s.LogText())
	}
	return n
}

// TestFailedSlotLeavesTheOthersServing uses up one slot's budget: the other serves on.
func TestFailedSlotLeavesTheOthersServing(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Set: []string{"worker.max_crashes=2", "worker.crash_window=10m"}})
	keep := s.Workers()[0]
	for range 3 {
		var victim int
		if err := testkit.Await(func() bool {
			for _, pid := range s.Workers() {
				if pid != keep {
					victim = pid
				}
			}
			return victim != 0
		}); err != nil {
			t.Fatal(err)
		}
		n := s.Reports()
		kill(t, victim, syscall.SIGKILL)
		if n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready"); strings.Contains(s.LogText(), "slot failed") {
			break
		}
		s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	}
	if !strings.Contains(s.LogText(), "slot failed") {
		t.Fatalf("the slot has not failed:\n%s", s.LogText())
	}
	for range 10 {
		if status, body := get(t, s.URL+"/readyz"); status != 200 {
			t.Fatalf("%d: %s", status, body)
		}
	}
	kill(t, keep, syscall.SIGKILL) // its own budget is untouched
	n := s.AwaitAfter(0, "STATUS=0 of 2 workers ready")
	s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
}

// TestNothingCanBeBroughtBack ends with the last worker's own words.
func TestNothingCanBeBroughtBack(t *testing.T) {
	command := pythonWorker(t, `
notify("READY=1")
print("the last words", file=sys.stderr)
sys.exit(9)
`)
	s := testkit.Launch(t, testkit.Options{Set: []string{"worker.ready=notify", "worker.command=" + command, "worker.max_crashes=2", "worker.crash_window=10m"}})
	if status := s.Wait(); status != ipc.ExitUnavailable {
		t.Errorf("exit status %d", status)
	}
	if text := s.LogText(); !strings.Contains(text, "the last words\n") || !strings.Contains(text, "worker.max_crashes (2)") {
		t.Errorf("%s", text)
	}
}

// TestOneDeadStarterDoesNotEndTheService: of the first workers, one cannot start.
func TestOneDeadStarterDoesNotEndTheService(t *testing.T) {
	command := pythonWorker(t, `
if os.environ["PREFORKD_SLOT"] == "0" and not os.path.exists(__file__ + ".second"):
    open(__file__ + ".second", "w").close()
    sys.exit("stillborn")
notify("READY=1")
time.sleep(1000)
`)
	s := testkit.Launch(t, testkit.Options{Set: []string{"worker.ready=notify", "worker.command=" + command}})
	s.Await("READY=1")
	s.Await("STATUS=2 of 2 workers ready")
	if !strings.Contains(s.LogText(), "stillborn") {
		t.Errorf("%s", s.LogText())
	}
}

// TestStoppedHeartbeat stops a worker's process (SIGSTOP) under load: its clock ends it, it is
// replaced, and only its own clients notice.
func TestStoppedHeartbeat(t *testing.T) {
	const conns = 16
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := testkit.Start(t, testkit.Options{
		Admin: socket, Set: append([]string{"timeouts.heartbeat=5s", "http.worker_header=true"}, quickReload...),
	})
	g, end := storm(t, s, load.Options{Conns: conns, Think: think, Keepalive: true, Timeout: testkit.Limit})
	answers(t, g, 8*conns)
	toll := newToll(t, strings.TrimPrefix(s.URL, "http://"))
	n := s.Reports()
	toll.freeze(s.Workers()[0])
	n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
	s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	answers(t, g, 2*conns)
	toll.noticed(end(), conns)
	if text := s.LogText(); !strings.Contains(text, "timeouts.heartbeat") {
		t.Errorf("the log does not name the clock:\n%s", text)
	}
	if out, code := command(t, socket, "reload"); code != 0 { // the slot remembers
		t.Fatalf("%d: %s", code, out)
	}
	restarts, words := 0, ""
	for _, slot := range status1(t, socket).Pools[0].Slots {
		restarts += slot.Restarts
		words += slot.LastReason + ", " + slot.LastExit + "; "
	}
	if restarts != 1 || !strings.Contains(words, "heartbeat clock, killed by signal 9") {
		t.Errorf("%d restarts, last exits %s", restarts, words)
	}
	if out, code := command(t, socket, "status"); code != 0 || !strings.Contains(out, "heartbeat clock, killed by signal 9") {
		t.Errorf("%d: %s", code, out)
	}
}
