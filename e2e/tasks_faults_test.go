package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// TestTasksSurviveKills kills broker, worker of tasks and supervisor under load, again and again:
// every task that was accepted ends, once.
func TestTasksSurviveKills(t *testing.T) {
	s, socket := tasking(t, testkit.Options{Set: []string{"tasks.silence=2s"}})
	storm := stormTasks(t, s.URL, 4)
	for range times(3, 20) {
		for _, victim := range []func(admin.Status) int{
			func(st admin.Status) int { return st.Tasks.PID },
			func(st admin.Status) int { return poolOf(st, "tasks").Slots[0].PID },
			func(st admin.Status) int { return st.PID },
		} {
			storm.more(10)
			st := status1(t, socket)
			pid := victim(st)
			if pid == 0 {
				continue
			}
			kill(t, pid, syscall.SIGKILL)
			if testkit.Await(func() bool { // its successor serves
				out, code := command(t, socket, "status", "--json")
				var now admin.Status
				return code == 0 && json.Unmarshal([]byte(out), &now) == nil && victim(now) != pid && victim(now) != 0 && now.Tasks.Up
			}) != nil {
				t.Fatalf("nobody took the place of process %d", pid)
			}
		}
	}
	storm.more(10)
	storm.end()
}

func poolOf(st admin.Status, name string) admin.Pool {
	for _, p := range st.Pools {
		if p.Name == name && len(p.Slots) > 0 {
			return p
		}
	}
	return admin.Pool{Slots: []admin.Slot{{}}}
}

// TestTasksSurviveReloadAndUpgrade: neither is an attempt, and nobody waits for long.
func TestTasksSurviveReloadAndUpgrade(t *testing.T) {
	s, socket := tasking(t, testkit.Options{})
	storm := stormTasks(t, s.URL, 4)
	for range times(1, 20) {
		storm.more(10)
		must(t, socket, []string{"reload"})
		storm.more(10)
		must(t, socket, []string{"upgrade"})
	}
	storm.more(10)
	if again := storm.end(); again != 0 {
		t.Errorf("%d runs counted twice", again)
	}
}

// TestTasksSurviveTheService kills every process of it at once: the next start goes on.
func TestTasksSurviveTheService(t *testing.T) {
	dir := t.TempDir()
	set := taskSettings(dir, "tasks.silence=2s")
	var accepted []string
	for range times(2, 10) {
		s := testkit.Start(t, testkit.Options{Set: set})
		storm := stormTasks(t, s.URL, 4)
		storm.more(20)
		pids := append(s.Workers(), s.PID, s.Main)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // so that they die together
		}
		for _, pid := range pids {
			kill(t, pid, syscall.SIGKILL)
		}
		storm.halt()
		accepted = append(accepted, storm.accepted...)
		s.Wait()
	}
	s := testkit.Start(t, testkit.Options{Set: set})
	again := 0
	for _, id := range accepted {
		if status, body := outcome(t, s.URL, id); status != 200 || !strings.HasPrefix(body, predicted) {
			t.Errorf("task %s: status %d: %.200s", id, status, body)
		}
		again += state(t, s.URL, id).Attempts - 1
	}
	t.Logf("accepted %d, finished %d, lost 0, run twice %d", len(accepted), len(accepted), again)
}

// TestTasksPoison: a task that ends its worker is parked after three, with the reason; its
// neighbours, its model and those who answer requests notice nothing.
func TestTasksPoison(t *testing.T) {
	f := lay(t)
	if err := os.MkdirAll(filepath.Join(f.models, "divide", "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.divide(deadly())
	write(t, filepath.Join(f.models, "divide", "warmup.json"), `[{"request":`+number(5)+`,"outputs":{"y":[20]}}]`)
	f.start(testkit.Options{Set: append(taskSettings(t.TempDir()), quickReload...)}, "")
	poison := submitted(t, f.URL, "divide", number(0))
	var neighbours []string
	for range 5 {
		neighbours = append(neighbours, submitted(t, f.URL, "divide", number(5)))
	}
	status, body := outcome(t, f.URL, poison)
	st := state(t, f.URL, poison)
	if status != 500 || st.Status != "dead" || st.Crashes != 3 || st.Attempts != 3 || !strings.Contains(body, "it has ended 3 workers") || len(st.Lines) == 0 {
		t.Errorf("status %d: %s; %+v", status, body, st)
	}
	for _, id := range neighbours {
		if status, body := outcome(t, f.URL, id); status != 200 {
			t.Errorf("a neighbour: status %d: %s", status, body)
		}
	}
	if status, body := f.divided(5); status != 200 {
		t.Errorf("directly: status %d: %s", status, body)
	}
	must(t, f.socket, []string{"tasks", "dead"}, poison, "dead", "it has ended 3 workers")
	must(t, f.socket, []string{"tasks", "show", poison}, `"crashes": 3`)
	must(t, f.socket, []string{"tasks", "retry", poison}, "runs again")
	ends(t, f.socket, []string{"tasks", "show", "none"}, 64, "no such task")
	if status, _ := outcome(t, f.URL, poison); status != 500 {
		t.Errorf("once more: status %d", status)
	}
}

// TestTasksFullDisk fills the disk of the queue: tasks are refused within seconds, nothing that was
// accepted is lost, and it heals by itself.
func TestTasksFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("a small file system needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	s, _ := reloadable(t, testkit.Options{Set: taskSettings(disk, "tasks.reserve=4MiB")})
	before := submitted(t, s.URL, "digits", features)
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<20), 0o600); err == nil {
		t.Fatal("there was room for more than there is")
	}
	refused, longest := 0, time.Duration(0)
	for refused < 5 {
		begun := time.Now()
		resp, text, err := exchange(t, "POST", s.URL+"/models/digits/tasks", features)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == 503 {
			refused++
			longest = max(longest, time.Since(begun))
			if !strings.Contains(text, "MiB free") && !strings.Contains(text, "written") && !strings.Contains(text, "does not answer") {
				t.Errorf("the reason is %s", text)
			}
		}
	}
	demand(t, 200, "GET", s.URL+"/readyz", "")
	demand(t, 200, "POST", s.URL+"/predict/digits", features)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	after := submitted(t, s.URL, "digits", features)
	for _, id := range []string{before, after} {
		if status, body := outcome(t, s.URL, id); status != 200 {
			t.Errorf("status %d: %s", status, body)
		}
	}
	t.Logf("the longest refusal took %v", longest.Round(time.Millisecond))
}

// TestTasksOfAModelThatIsGone: a reload without the model ends what waits for it, with the reason.
func TestTasksOfAModelThatIsGone(t *testing.T) {
	models := copyModels(t)
	s, socket := tasking(t, testkit.Options{Models: models, Workers: 1, Set: []string{"tasks.workers=0"}})
	id := submitted(t, s.URL, "digits-forest", features)
	if err := os.RemoveAll(filepath.Join(models, "digits-forest")); err != nil {
		t.Fatal(err)
	}
	must(t, socket, []string{"reload"})
	status, body := outcome(t, s.URL, id)
	if status != 500 || !strings.Contains(body, `model \"digits-forest\" is not served any more`) {
		t.Errorf("status %d: %s", status, body)
	}
}
