package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// programOf returns the path of the program that pid runs.
func programOf(t *testing.T, pid int) string {
	t.Helper()
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// installation is a directory with the programs of a package.
func installation(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	install(t, dir)
	return dir
}

// upgradeTo goes on with the programs in dir, and returns when those before have left.
func upgradeTo(t *testing.T, s *testkit.Service, socket, dir string, args ...string) {
	t.Helper()
	before, reports := s.Supervisor(), s.Reports()
	must(t, socket, append([]string{"upgrade", filepath.Join(dir, "preforkd")}, args...), "serves")
	testkit.Gone(t, before)
	s.AwaitAfter(reports, "READY=1") // the main process knows of it
	s.Supervisor()
}

// TestUpgrade goes from program to program, and nobody notices.
func TestUpgrade(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			const conns = 16
			s, socket, address := reachedOver(t, network, testkit.Options{Workers: map[string]int{"tcp": 2, "unix": 6}[network]})
			g, end := stormAt(t, address, load.Options{Conns: conns, Keepalive: true})
			_, endFresh := stormAt(t, address, load.Options{Conns: 4, Think: 5 * time.Millisecond})
			dirs := []string{installation(t), installation(t)}
			for i := range times(3, 20) {
				answers(t, g, 100)
				dir, before := dirs[i%2], s.Supervisor()
				must(t, socket, []string{"upgrade", filepath.Join(dir, "preforkd")}, fmt.Sprintf("generation %d serves", i+2))
				testkit.Gone(t, before)
				if got := programOf(t, s.Supervisor()); got != filepath.Join(dir, "preforkd") {
					t.Errorf("%s runs", got)
				}
				for _, pid := range s.Workers() {
					if got := programOf(t, pid); got != filepath.Join(dir, "preforkd-worker") {
						t.Errorf("worker %s runs", got)
					}
					environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
					if err != nil {
						t.Fatal(err)
					}
					for _, foreign := range []string{"TABLEFLIP_", "WATCHDOG_PID=", "PREFORKD_VAULT=", "PREFORKD_PROGRAM="} {
						if strings.Contains(string(environ), "\x00"+foreign) {
							t.Errorf("a worker inherits %s", foreign)
						}
					}
				}
				if st := status1(t, socket); st.PID != s.PID || st.Generation != uint64(i+2) {
					t.Errorf("%+v", st)
				}
			}
			answers(t, g, 100)
			untouched(t, end(), conns)
			if r := endFresh(); r.Failures.Total() > 0 {
				t.Errorf("new connections: %v", r.Failures)
			}
		})
	}
}

// TestUpgradeWhileRequestsDrain: the former program leaves at once, and the next upgrade
// need not wait for what its workers have begun.
func TestUpgradeWhileRequestsDrain(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{})
	dirs := []string{installation(t), installation(t)}
	done := inFlight(t, s, 2, 20000)
	for i, dir := range dirs {
		upgradeTo(t, s, socket, dir)
		if st := status1(t, socket); st.Generation != uint64(i+2) {
			t.Errorf("generation %d", st.Generation)
		}
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	s.Supervisor()
}

// TestUpgradeBySignal takes what lies at the path by which the service was started, by name:
// a link that leads elsewhere by now.
func TestUpgradeBySignal(t *testing.T) {
	link := filepath.Join(t.TempDir(), "current")
	dirs := []string{installation(t), installation(t)}
	if err := os.Symlink(dirs[0], link); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	cmd := testkit.Options{Admin: socket, Set: quickReload}.Command(t)
	cmd.Path = filepath.Join(link, "preforkd")
	cmd.Args[0] = cmd.Path
	s := testkit.LaunchCommand(t, cmd)
	s.Await("READY=1")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dirs[1], link); err != nil {
		t.Fatal(err)
	}
	old := s.Supervisor()
	s.Signal(syscall.SIGUSR2)
	testkit.Gone(t, old)
	if got := programOf(t, s.Supervisor()); got != filepath.Join(dirs[1], "preforkd") {
		t.Errorf("%s runs", got)
	}
}

// TestUpgradeFromBefore goes from the programs of an earlier commit to these, and back.
func TestUpgradeFromBefore(t *testing.T) {
	before := os.Getenv("PREFORKD_BEFORE")
	if before == "" {
		t.Skip("PREFORKD_BEFORE names no directory with the programs of an earlier commit; make test-upgrade builds them")
	}
	const conns = 16
	socket := filepath.Join(t.TempDir(), "admin.sock")
	cmd := testkit.Options{Admin: socket, Set: quickReload}.Command(t)
	cmd.Path = filepath.Join(before, "preforkd")
	cmd.Args[0] = cmd.Path
	s := testkit.LaunchCommand(t, cmd)
	s.Await("READY=1")
	g, end := stormAt(t, status1(t, socket).Listen[0], load.Options{Conns: conns, Keepalive: true})
	for range times(2, 20) {
		for _, dir := range []string{installation(t), before} {
			answers(t, g, 100)
			upgradeTo(t, s, socket, dir)
			if got := programOf(t, s.Supervisor()); got != filepath.Join(dir, "preforkd") {
				t.Errorf("%s runs", got)
			}
		}
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
}

// TestUpgradeWithEnvironment: a program keeps the service's, unless the command gives its own.
func TestUpgradeWithEnvironment(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Env: []string{"COLOUR=red"}})
	dir := installation(t)
	colour := func() string {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.Workers()[0]))
		if err != nil {
			t.Fatal(err)
		}
		for e := range strings.SplitSeq(string(environ), "\x00") {
			if value, ok := strings.CutPrefix(e, "COLOUR="); ok {
				return value
			}
		}
		return ""
	}
	t.Setenv("COLOUR", "green")
	if os.Getuid() == 0 {
		name, value, _ := strings.Cut(testkit.AsRoot, "=")
		t.Setenv(name, value)
	}
	for _, c := range []struct {
		args []string
		want string
	}{{nil, "red"}, {[]string{"--env"}, "green"}, {nil, "green"}} {
		upgradeTo(t, s, socket, dir, c.args...)
		if got := colour(); got != c.want {
			t.Errorf("upgrade %v: %q, want %q", c.args, got, c.want)
		}
	}
}

// TestRollbackAcrossPrograms returns to the program of the generation, held since it served:
// its directory may have gone.
func TestRollbackAcrossPrograms(t *testing.T) {
	const conns = 16
	s, socket := reloadable(t, testkit.Options{})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	first, dir := filepath.Dir(programOf(t, s.Supervisor())), installation(t)
	upgradeTo(t, s, socket, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ dir, suffix string }{{first, ""}, {dir, " (deleted)"}, {first, ""}} {
		answers(t, g, 100)
		before, reports := s.Supervisor(), s.Reports()
		must(t, socket, []string{"rollback"}, fmt.Sprintf("generation %d serves", i+3))
		testkit.Gone(t, before)
		s.AwaitAfter(reports, "READY=1")
		if got := programOf(t, s.Supervisor()); got != filepath.Join(c.dir, "preforkd")+c.suffix {
			t.Errorf("rollback %d: %s runs", i, got)
		}
		for _, pid := range s.Workers() {
			if got := programOf(t, pid); got != filepath.Join(c.dir, "preforkd-worker")+c.suffix {
				t.Errorf("rollback %d: worker %s runs", i, got)
			}
		}
		if st := status1(t, socket); st.RolledBackTo != uint64(i+1) {
			t.Errorf("rollback %d returned to %d", i, st.RolledBackTo)
		}
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
}

// anotherLayout builds programs that call the rows of the scoreboard otherwise: neither they nor
// the usual ones understand a board of the other's.
func anotherLayout(t *testing.T) string {
	t.Helper()
	dir := installation(t)
	for name, source := range map[string]string{"preforkd": "./cmd/supervisor", "preforkd-worker": "./cmd/worker"} {
		path := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-ldflags", "-X preforkd/internal/ipc/scoreboard.sectionRows=otherrows", "-o", path+".new", source)
		cmd.Dir = testkit.Root(t)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestUpgradeToAnotherLayout of the scoreboard, and back: a new board begins with the former
// one's sums.
func TestUpgradeToAnotherLayout(t *testing.T) {
	const conns = 16
	other, same := anotherLayout(t), installation(t)
	s, socket := reloadable(t, testkit.Options{Ops: "127.0.0.1:0"})
	url := operations(t, socket)
	const counted = `preforkd_http_requests_total{code="2xx"}`
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	for _, dir := range []string{other, same} {
		answers(t, g, 1000)
		before, workers := numbers(t, url), s.Workers()
		upgradeTo(t, s, socket, dir)
		for _, pid := range workers {
			testkit.Gone(t, pid)
		}
		after := numbers(t, url)
		for _, name := range []string{counted, "preforkd_http_request_duration_seconds_count", "preforkd_engine_calls_total"} {
			if after[name] < before[name] || before[name] == 0 {
				t.Errorf("%s fell from %v to %v", name, before[name], after[name])
			}
		}
		answers(t, g, 1000)
		if now := numbers(t, url); now[counted] < after[counted]+900 {
			t.Errorf("%v requests, %v before", now[counted], after[counted])
		}
	}
	killSupervisor(t, s, socket)
	answers(t, g, 100)
	untouched(t, end(), conns)
	if r := s.LogText(); strings.Contains(r, "counters begin anew") {
		t.Error(r)
	}
}
