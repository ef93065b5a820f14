package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// killSupervisor ends the supervisor of s without a word, and returns when another has
// replaced the workers that it found.
func killSupervisor(t *testing.T, s *testkit.Service, socket string) {
	t.Helper()
	generation := status1(t, socket).Generation
	old := s.Supervisor()
	kill(t, old, syscall.SIGKILL)
	takenOver(t, s, socket, old, generation)
}

// takenOver returns when a successor of the supervisor old has replaced the workers of
// generation.
func takenOver(t *testing.T, s *testkit.Service, socket string, old int, generation uint64) {
	t.Helper()
	if err := testkit.Await(func() bool { return s.Supervisor() != old }); err != nil {
		t.Fatalf("no successor: %v", err)
	}
	if err := testkit.Await(func() bool {
		st := status1(t, socket)
		return st.PID != old && st.Generation > generation && allReady(st) && len(st.Pools[0].Slots) == st.Pools[0].Size
	}); err != nil {
		t.Fatalf("workers not replaced: %+v", status1(t, socket).Pools)
	}
}

// reachedOver starts a service that listens on a socket of network, tcp or unix, and returns
// its address as load.Options have it.
func reachedOver(t *testing.T, network string, o testkit.Options) (s *testkit.Service, socket, address string) {
	t.Helper()
	if network == "unix" {
		address = "unix:" + filepath.Join(t.TempDir(), "http.sock")
		o.Listen = []string{address}
	}
	s, socket = reloadable(t, o)
	if network == "tcp" {
		address = strings.TrimPrefix(s.URL, "http://")
	}
	return s, socket, address
}

// TestSupervisorKilled: its workers serve on, and a successor replaces them; over TCP and a
// unix socket, with two workers and with six.
func TestSupervisorKilled(t *testing.T) {
	for _, workers := range []int{2, 6} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(fmt.Sprintf("%d over %s", workers, network), func(t *testing.T) {
				const conns = 16
				s, socket, address := reachedOver(t, network, testkit.Options{Workers: workers})
				g, end := stormAt(t, address, load.Options{Conns: conns, Keepalive: true})
				_, endFresh := stormAt(t, address, load.Options{Conns: 4, Think: 5 * time.Millisecond})
				for range times(2, 6) {
					answers(t, g, 200)
					killSupervisor(t, s, socket)
				}
				answers(t, g, 200)
				untouched(t, end(), conns)
				if r := endFresh(); r.Failures.Total() > 0 {
					t.Errorf("new connections: %v", r.Failures)
				}
			})
		}
	}
}

// TestSupervisorAndWorkersKilled: connections wait in the kernel, and nobody is refused.
func TestSupervisorAndWorkersKilled(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{})
	for range times(2, 6) {
		pids := append(s.Workers(), s.Supervisor())
		generation := status1(t, socket).Generation
		for _, pid := range pids {
			kill(t, pid, syscall.SIGKILL)
		}
		for range 4 {
			if status, text := post(t, s.URL+"/predict/digits", body(sample)); status != 200 {
				t.Fatalf("%d: %s", status, text)
			}
		}
		if st := status1(t, socket); st.Generation != generation {
			t.Errorf("generation %d replaces %d, whose workers are all dead", st.Generation, generation)
		}
		s.Supervisor()
	}
}

// TestSupervisorHangs: it is killed and replaced, and nobody notices.
func TestSupervisorHangs(t *testing.T) {
	const conns = 16
	s, socket := reloadable(t, testkit.Options{})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	answers(t, g, 100)
	old, generation := s.Supervisor(), status1(t, socket).Generation
	kill(t, old, syscall.SIGSTOP)
	takenOver(t, s, socket, old, generation)
	answers(t, g, 100)
	untouched(t, end(), conns)
	if !strings.Contains(s.LogText(), "supervisor hangs; it is killed") {
		t.Error("the log does not say why")
	}
}

// TestSuccessorGoesOn: what a supervisor that was killed had, its successor has: settings
// that were in force whatever the file says by now, sizes, generations to return to, the
// output of workers, and it replaces one that dies.
func TestSuccessorGoesOn(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: "log: {level: info}\n"})
	write(t, s.Config, "log: {level: debug}\n")
	must(t, socket, []string{"reload"}, "log.level: info -> debug")
	must(t, socket, []string{"scale", "3"}, "3 workers")
	write(t, s.Config, "nonsense: [\n")
	killSupervisor(t, s, socket)
	st := status1(t, socket)
	if st.Pools[0].Size != 3 || st.Generation != 3 {
		t.Errorf("%+v", st)
	}
	ends(t, socket, []string{"reload"}, 78, "nonsense")
	kill(t, s.Workers()[0], syscall.SIGKILL)
	if err := testkit.Await(func() bool { return len(s.Workers()) == 3 && status1(t, socket).Pools[0].Slots[0].State == "ready" }); err != nil {
		t.Error(err)
	}
	must(t, socket, []string{"rollback"}, "log.level: debug -> info", "generation 5 serves")
	killSupervisor(t, s, socket)
	all := generations(t, socket)
	if len(all) != 3 || all[0].RollbackTo != 1 || all[0].Cause != "the supervisor died" {
		t.Errorf("%+v", all)
	}
}

// TestSupervisorKilledInReload: before the commit what was tried is given up, and the
// former generation serves.
func TestSupervisorKilledInReload(t *testing.T) {
	const conns = 16
	command, shut := gatedWorker(t)
	s, socket := reloadable(t, testkit.Options{Config: "worker: {kind: preforkd, command: [" + command + "]}\n"})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	for range times(2, 6) {
		answers(t, g, 100)
		old, generation := s.Supervisor(), status1(t, socket).Generation
		open := shut()
		s.Signal(syscall.SIGHUP)
		if err := testkit.Await(func() bool { return len(testkit.Children(t, old)) == 3 }); err != nil {
			t.Fatal(err)
		}
		kill(t, old, syscall.SIGKILL)
		open()
		takenOver(t, s, socket, old, generation)
	}
	untouched(t, end(), conns)
}

// TestMainProcessKilled: nothing stays behind.
func TestMainProcessKilled(t *testing.T) {
	s, _ := reloadable(t, testkit.Options{})
	pids := append(s.Workers(), s.Supervisor())
	kill(t, s.Main, syscall.SIGKILL)
	for _, pid := range pids {
		testkit.Gone(t, pid)
	}
}

// TestMainProcessIsSmall: what it holds in memory, and how rarely it wakes.
func TestMainProcessIsSmall(t *testing.T) {
	s, _ := reloadable(t, testkit.Options{})
	g, end := storm(t, s, load.Options{Conns: 4})
	answers(t, g, 500)
	before, began := switches(t, s.Main), time.Now()
	answers(t, g, 2000)
	end()
	got, ticks := switches(t, s.Main)-before, int(time.Since(began)/time.Second)+1
	if got > 50+5*ticks { // 2,000 connections would be that many times
		t.Errorf("%d context switches in %d s with 2,000 new connections", got, ticks)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Main))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil || kb > 8<<10 && !testkit.RaceEnabled {
				t.Errorf("resident: %s", line)
			}
		}
	}
}

// switches counts the context switches of a process so far.
func switches(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for line := range strings.Lines(string(data)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "_ctxt_switches") {
				more, err := strconv.Atoi(strings.TrimSpace(value))
				if err != nil {
					t.Fatal(err)
				}
				n += more
			}
		}
	}
	return n
}

// TestThawedServiceGoesOn: a container that was frozen kills nobody when it goes on.
func TestThawedServiceGoesOn(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{})
	before := fmt.Sprint(s.Supervisor(), s.Workers())
	all := append([]int{s.Main, s.PID}, s.Workers()...)
	for _, pid := range all {
		if !testkit.Freeze(t, pid) {
			t.Fatalf("process %d has ended", pid)
		}
	}
	time.Sleep(8 * time.Second) // longer than a supervisor alone may stand still
	for _, pid := range all {
		kill(t, pid, syscall.SIGCONT)
	}
	generation := status1(t, socket).Generation
	time.Sleep(3 * time.Second) // as many looks as it takes to kill one
	if after := fmt.Sprint(s.Supervisor(), s.Workers()); after != before || status1(t, socket).Generation != generation {
		t.Errorf("%s, before %s", after, before)
	}
}
