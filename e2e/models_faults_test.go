package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// loading is a load command under way.
func (f *site) loading(model string) *exec.Cmd {
	f.t.Helper()
	cmd := exec.Command(filepath.Join(testkit.Programs(f.t), "preforkd"), "models", "load", model, "--admin", f.socket)
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	return cmd
}

func (f *site) loaded(cmd *exec.Cmd) (status int, said string) {
	late := time.AfterFunc(2*testkit.Limit, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), fmt.Sprint(cmd.Stdout, cmd.Stderr)
}

// tried waits until the process that tries a model has left: the workers prepare.
func (h *happenings) tried() {
	h.t.Helper()
	h.await("the end of a trial", func(e admin.Event) bool { return e.Kind == "left" && *e.Slot == 2 })
}

// TestOneWorkerRefuses: a worker that dies while others have prepared takes the change with it.
func TestOneWorkerRefuses(t *testing.T) {
	f, cmd, victim := preparing(t)
	kill(t, victim, syscall.SIGKILL)
	if status, said := f.loaded(cmd); status != ipc.ExitRolledBack || !strings.Contains(said, "worker 0 of pool main ended meanwhile") {
		t.Errorf("%d: %s", status, said)
	}
	f.intact()
	f.everyWorker("other", "1")
	must(t, f.socket, []string{"models", "load", "other"}, "version 2 is served by 2 workers")
	f.everyWorker("other", "2")
}

// TestSupervisorDiesWhileWorkersPrepare: nothing was decided, so all serve what they served.
func TestSupervisorDiesWhileWorkersPrepare(t *testing.T) {
	f, cmd, frozen := preparing(t)
	old := f.Supervisor()
	kill(t, old, syscall.SIGKILL)
	kill(t, frozen, syscall.SIGCONT)
	if status, said := f.loaded(cmd); status != ipc.ExitUnavailable {
		t.Errorf("%d: %s", status, said)
	}
	takenOver(t, f.Service, f.socket, old, 1)
	f.everyWorker("other", "1")
	must(t, f.socket, []string{"models", "load", "other"}, "version 2 is served by 2 workers")
	f.everyWorker("other", "2")
}

// TestModelsInAStorm kills workers and supervisors at any moment of a load: afterwards all
// workers serve the same version, the new one if the command said so.
func TestModelsInAStorm(t *testing.T) {
	f := controlled(t, testkit.Options{})
	f.version("other", 1)
	must(t, f.socket, []string{"models", "load", "other"})
	outcomes := map[int]int{}
	for round := range times(16, 200) {
		before := f.everywhere("other")
		wanted := strconv.Itoa(2 - round%2) // 2, 1, 2, …
		if _, err := os.Stat(filepath.Join(f.models, "other", wanted)); err != nil {
			f.version("other", 2)
		}
		write(t, filepath.Join(f.models, "other/config.yaml"), "version: "+wanted+"\n")
		generation := status1(t, f.socket).Generation
		cmd := f.loading("other")
		time.Sleep(time.Duration(round*11%160) * time.Millisecond) // where in the change that is differs
		old := f.Supervisor()
		if round%3 == 2 {
			kill(t, old, syscall.SIGKILL)
		} else if pids := f.Workers(); len(pids) > 0 {
			kill(t, pids[round%len(pids)], syscall.SIGKILL)
		}
		status, said := f.loaded(cmd)
		outcomes[status]++
		if round%3 == 2 {
			takenOver(t, f.Service, f.socket, old, generation)
		}
		f.intact()
		now := f.everywhere("other")
		switch {
		case now != before && now != wanted,
			status == 0 && now != wanted,
			status == ipc.ExitRolledBack && now != before:
			t.Fatalf("round %d: %q after a load of %s that ended with %d, before it was %s: %s", round, now, wanted, status, before, said)
		case status != 0 && status != ipc.ExitRolledBack && status != ipc.ExitUnavailable && status != ipc.ExitTryAgain:
			t.Errorf("round %d: status %d: %s", round, status, said)
		}
	}
	t.Logf("loads by exit status: %v", outcomes)
}

// preparing begins a load of version 2 and returns when all are asked to prepare; worker 0 is
// frozen before it can.
func preparing(t *testing.T) (f *site, cmd *exec.Cmd, frozen int) {
	t.Helper()
	f = controlled(t, testkit.Options{})
	f.version("other", 1)
	must(t, f.socket, []string{"models", "load", "other"})
	f.version("other", 2)
	events := f.events()
	events.tried()
	frozen = f.worker(1, 0)
	if !testkit.Freeze(t, frozen) {
		t.Fatal("the worker does not stop")
	}
	cmd = f.loading("other")
	events.tried()
	return f, cmd, frozen
}

// halfway begins a load of version 2 and returns when worker 0 has prepared and worker 1 is asked
// to; both are frozen.
func halfway(t *testing.T, set ...string) (f *site, cmd *exec.Cmd, pids [2]int) {
	t.Helper()
	cache := t.TempDir()
	f = controlled(t, testkit.Options{Cache: cache}, set...)
	f.version("other", 1)
	must(t, f.socket, []string{"models", "load", "other"})
	f.version("other", 2)
	for i := range pids {
		pids[i] = f.worker(1, i)
	}
	if !testkit.Freeze(t, pids[1]) {
		t.Fatal("the worker does not stop")
	}
	cmd = f.loading("other")
	if testkit.Await(func() bool { // what the second one is to read
		sets, err := filepath.Glob(filepath.Join(cache, "models/.new-*/set.json"))
		return err == nil && len(sets) == 2
	}) != nil {
		t.Fatal("worker 1 was not asked")
	}
	if !testkit.Freeze(t, pids[0]) {
		t.Fatal("the worker does not stop")
	}
	return f, cmd, pids
}

// TestOneWorkerHangsAsItIsDecided: it is ended, as the others serve the new version by then.
func TestOneWorkerHangsAsItIsDecided(t *testing.T) {
	f, cmd, pids := halfway(t, "timeouts.heartbeat=3s")
	kill(t, pids[1], syscall.SIGCONT)
	status, said := f.loaded(cmd)
	if testkit.Await(func() bool { return !testkit.Alive(pids[0]) }) != nil {
		t.Error("the worker that hung is still there")
	}
	f.intact()
	switch status {
	case 0:
		f.everyWorker("other", "2")
	case ipc.ExitRolledBack: // with many cores both are asked at once, and the first had not prepared yet
		f.everyWorker("other", "1")
	default:
		t.Errorf("%d: %s", status, said)
	}
}

// TestSupervisorDiesAsItHasDecided: a worker that has not heard of it finds out.
func TestSupervisorDiesAsItHasDecided(t *testing.T) {
	f, cmd, pids := halfway(t)
	kill(t, pids[1], syscall.SIGCONT)
	impatient := &http.Client{Timeout: time.Second, Transport: fresh.Transport} // the other one may have accepted
	if testkit.Await(func() bool {
		resp, err := impatient.Get(f.URL + "/v2/models/other/versions/2/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}) != nil {
		t.Fatal("worker 1 does not serve it")
	}
	old := f.Supervisor()
	kill(t, old, syscall.SIGKILL)
	kill(t, pids[0], syscall.SIGCONT)
	if status, said := f.loaded(cmd); status != ipc.ExitUnavailable {
		t.Errorf("%d: %s", status, said)
	}
	takenOver(t, f.Service, f.socket, old, 1)
	f.everyWorker("other", "2")
}
