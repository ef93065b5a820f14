package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// script writes a program that upgrade can find.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "preforkd")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUpgradeToNothing: programs that are none leave everything as it was, and say what is
// wrong.
func TestUpgradeToNothing(t *testing.T) {
	const conns = 16
	s, socket := reloadable(t, testkit.Options{})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	whole, err := os.ReadFile(filepath.Join(testkit.Programs(t), "preforkd"))
	if err != nil {
		t.Fatal(err)
	}
	plain := script(t, "#!/bin/sh\n")
	if err := os.Chmod(plain, 0o644); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(s.Supervisor(), s.Workers())
	for _, c := range []struct {
		name, path string
		exit       int
		want       []string
	}{
		{"missing", filepath.Join(t.TempDir(), "preforkd"), 69, []string{"no such file", "the old one serves"}},
		{"not executable", plain, 69, []string{"permission denied"}},
		{"a directory", t.TempDir(), 69, []string{"is a directory"}},
		{"exits", script(t, "#!/bin/sh\necho out of order >&2\nexit 7\n"), 4, []string{"upgrade taken back", "out of order", "the old program serves"}},
		{"exits well", script(t, "#!/bin/sh\nexit 0\n"), 4, []string{"upgrade taken back", "exited"}},
		{"truncated", script(t, string(whole[:len(whole)/2])), 4, []string{"upgrade taken back"}},
		{"no program", script(t, "\x7fELF and nothing more"), 4, []string{"upgrade taken back", "exec format error"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ends(t, socket, []string{"upgrade", c.path}, c.exit, c.want...)
			answers(t, g, 100)
		})
	}
	if after := fmt.Sprint(s.Supervisor(), s.Workers()); after != before {
		t.Errorf("%s, before %s", after, before)
	}
	untouched(t, end(), conns)
}

// TestUpgradeHangs: a program that does nothing is given up.
func TestUpgradeHangs(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{})
	ends(t, socket, []string{"upgrade", script(t, "#!/bin/sh\nexec sleep 1000\n")}, 4, "it said nothing", "the old program serves")
	for _, pid := range testkit.Children(t, s.PID) {
		if path := programOf(t, pid); strings.Contains(path, "sleep") {
			t.Errorf("%s is left behind", path)
		}
	}
}

// TestUpgradeTakenBack: what the new program's workers cannot do is why it is taken back; its
// generation, its workers and what it had kept are gone.
func TestUpgradeTakenBack(t *testing.T) {
	const conns = 16
	models := copyModels(t)
	s, socket := reloadable(t, testkit.Options{
		Models: models, Cache: t.TempDir(), Set: []string{"worker.max_crashes=1000", "worker.max_backoff=1ms"},
	})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	held := testkit.Descriptors(t, s.Main)
	dir := installation(t)
	good := filepath.Join(models, "digits/1/model.onnx")
	model, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for range times(2, 20) {
		write(t, good, "garbage")
		before := s.Supervisor()
		ends(t, socket, []string{"upgrade", filepath.Join(dir, "preforkd")}, 4, "upgrade taken back", "model.onnx", "no ONNX model")
		answers(t, g, 100)
		if s.Supervisor() != before {
			t.Error("another supervisor is in charge")
		}
		kill(t, s.Workers()[0], syscall.SIGKILL) // its replacement is of the generation that serves
		if err := testkit.Await(func() bool {
			st := status1(t, socket)
			return allReady(st) && len(st.Pools[0].Slots) == 2
		}); err != nil {
			t.Fatalf("%+v", status1(t, socket).Pools)
		}
	}
	if now := testkit.Descriptors(t, s.Main); now > held+2 { // a row's pipe may be new
		t.Errorf("the main process holds %d descriptors, before %d", now, held)
	}
	write(t, good, string(model))
	must(t, socket, []string{"upgrade", filepath.Join(dir, "preforkd")}, "serves")
	answers(t, g, 100)
	r := end()
	if n := r.Failures.Total(); n > uint64(conns)*uint64(times(2, 20)) {
		t.Errorf("%v", r.Failures)
	}
}

// TestSupervisorsKilledInUpgrade: whoever dies when, one supervisor is in charge afterwards,
// and nobody has noticed.
func TestSupervisorsKilledInUpgrade(t *testing.T) {
	const conns = 16
	s, socket := reloadable(t, testkit.Options{Config: "reload: {bake: 50ms, trial: 50ms}\n"})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	dir := installation(t)
	for i := range times(6, 20) {
		answers(t, g, 100)
		old := s.Supervisor()
		ended := make(chan struct{})
		go func() { // whatever its end: who answers it may have been killed
			defer close(ended)
			_, _ = command(t, socket, "upgrade", filepath.Join(dir, "preforkd"))
		}()
		wait := time.Duration(rand.IntN(350)) * time.Millisecond // the moment is what is tested
		time.Sleep(wait)
		victim := old
		if i%2 == 1 {
			for _, pid := range testkit.Children(t, old) {
				if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && string(comm) == "preforkd\n" {
					victim = pid
				}
			}
		}
		if syscall.Kill(victim, syscall.SIGKILL) != nil {
			t.Logf("%d had gone after %v", victim, wait)
		}
		<-ended
		if err := testkit.Await(func() bool {
			pid := s.Supervisor() // the main process may wait before it starts one
			out, code := command(t, socket, "status", "--json")
			var st admin.Status
			if code != 0 || json.Unmarshal([]byte(out), &st) != nil {
				return false
			}
			return allReady(st) && st.PID == pid && len(st.Pools[0].Slots) == 2
		}); err != nil {
			t.Fatalf("after %v: %+v", wait, status1(t, socket))
		}
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
}

// TestStopInUpgrade: the new program ends with the old one.
func TestStopInUpgrade(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: "reload: {bake: 20s}\n"})
	dir := installation(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if out, code := command(t, socket, "upgrade", filepath.Join(dir, "preforkd")); code != 69 || !strings.Contains(out, "stopped") {
			t.Errorf("%d: %s", code, out)
		}
	}()
	old := s.Supervisor()
	if err := testkit.Await(func() bool { return len(testkit.Children(t, old)) > 2 }); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"upgrade", "--no-wait"}, {"reload", "--no-wait"}, {"rollback", "--no-wait"}, {"scale", "3", "--no-wait"}} {
		ends(t, socket, args, 75, "an upgrade is under way")
	}
	s.Signal(syscall.SIGTERM)
	if status := s.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	<-ended
}

// TestUpgradeThatKeepsDying: a program that was ready and then dies again and again is given
// up for the one before it, and for its generation.
func TestUpgradeThatKeepsDying(t *testing.T) {
	const conns = 16
	s, socket := reloadable(t, testkit.Options{})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	first := programOf(t, s.Supervisor())
	dir := installation(t)
	upgradeTo(t, s, socket, dir)
	for range 3 {
		old := s.Supervisor()
		if got := programOf(t, old); got != filepath.Join(dir, "preforkd") {
			t.Fatalf("%s runs", got)
		}
		kill(t, old, syscall.SIGKILL)
		if err := testkit.Await(func() bool { return s.Supervisor() != old && status1(t, socket).PID != old }); err != nil {
			t.Fatal(err)
		}
	}
	if got := programOf(t, s.Supervisor()); got != first {
		t.Errorf("%s runs, not %s", got, first)
	}
	if err := testkit.Await(func() bool {
		for _, pid := range s.Workers() {
			if path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || strings.HasPrefix(path, dir) {
				return false
			}
		}
		return status1(t, socket).RolledBackTo == 1
	}); err != nil {
		t.Errorf("%+v", status1(t, socket))
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
}

// TestUpgradeThatPanics: what the new program says as it dies is what the operator reads.
func TestUpgradeThatPanics(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: "reload: {bake: 20s}\n"})
	dir := installation(t)
	old := s.Supervisor()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if out, code := command(t, socket, "upgrade", filepath.Join(dir, "preforkd")); code != 4 || !strings.Contains(out, "SIGABRT: abort") {
			t.Errorf("%d: %s", code, out)
		}
	}()
	next := 0
	if err := testkit.Await(func() bool {
		for _, pid := range testkit.Children(t, old) {
			if path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && path == filepath.Join(dir, "preforkd") && len(testkit.Children(t, pid)) > 0 {
				next = pid
			}
		}
		return next > 0
	}); err != nil {
		t.Fatal(err)
	}
	kill(t, next, syscall.SIGABRT)
	<-ended
	if s.Supervisor() != old {
		t.Error("another supervisor is in charge")
	}
}

// TestUpgradeRefusesSettings that the new program does not know; the old one serves.
func TestUpgradeRefusesSettings(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: "log: {level: info}\n"})
	dir := installation(t)
	write(t, s.Config, "colour: red\n")
	ends(t, socket, []string{"upgrade", filepath.Join(dir, "preforkd")}, 4, "upgrade taken back", "preforkd.yaml:1", "colour")
	ends(t, socket, []string{"upgrade", "one", "two"}, 64, "takes one program")
	if status, text := post(t, s.URL+"/predict/digits", body(sample)); status != 200 {
		t.Errorf("%d: %s", status, text)
	}
}

// TestSuccessorKilledAtOnce: perhaps before the main process has heard of it.
func TestSuccessorKilledAtOnce(t *testing.T) {
	const conns = 16
	s, socket := reloadable(t, testkit.Options{})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	dir := installation(t)
	for range times(3, 8) {
		answers(t, g, 100)
		old := s.Supervisor()
		must(t, socket, []string{"upgrade", filepath.Join(dir, "preforkd")}, "serves")
		next := status1(t, socket)
		if next.PID == old {
			t.Fatal("the former supervisor answers")
		}
		kill(t, next.PID, syscall.SIGKILL)
		if err := testkit.Await(func() bool {
			st := status1(t, socket)
			return st.PID != next.PID && st.Generation > next.Generation
		}); err != nil {
			t.Fatalf("%+v", status1(t, socket))
		}
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
}

// TestUpgradeWithoutDescriptors: a limit that lets the service run, and no second supervisor,
// is said, and costs nothing.
func TestUpgradeWithoutDescriptors(t *testing.T) {
	const conns = 4
	dir := installation(t)
	served := 0
	for _, limit := range []int{40, 48, 56, 64, 128} {
		socket := filepath.Join(t.TempDir(), "admin.sock")
		s := testkit.Launch(t, testkit.Options{
			Admin: socket, Set: quickReload, Wrap: []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, limit), "sh"},
		})
		if testkit.Await(func() bool { return s.Ended() || s.Reported("READY=1") }) != nil || s.Ended() {
			continue // fewer than the service needs
		}
		g, end := stormAt(t, status1(t, socket).Listen[0], load.Options{Conns: conns, Keepalive: true})
		answers(t, g, 50)
		out, code := command(t, socket, "upgrade", filepath.Join(dir, "preforkd"))
		t.Logf("%d descriptors: %d: %s", limit, code, out)
		switch code {
		case 0:
			served++
		case 4: // it says why
		default:
			t.Errorf("%d descriptors: %d: %s", limit, code, out)
		}
		answers(t, g, 50)
		untouched(t, end(), conns)
	}
	if served == 0 {
		t.Error("no limit was enough")
	}
}

// TestUpgradeOnAFullDisk: what the next generation needs and cannot write takes the upgrade
// back; the copies of the models that serve are where they were.
func TestUpgradeOnAFullDisk(t *testing.T) {
	const conns = 16
	cache := t.TempDir()
	if err := unix.Mount("tmpfs", cache, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mount a file system of 4 MB: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cache, unix.MNT_DETACH) })
	models := copyModels(t)
	s, socket := reloadable(t, testkit.Options{Models: models, Cache: cache})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	dir := installation(t)
	filler := filepath.Join(cache, "filler")
	if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	write(t, filepath.Join(models, "digits/1/note"), strings.Repeat("more to copy ", 1<<14))
	ends(t, socket, []string{"upgrade", filepath.Join(dir, "preforkd")}, 4, "upgrade taken back", "no space left on device")
	answers(t, g, 100)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	upgradeTo(t, s, socket, dir)
	answers(t, g, 100)
	untouched(t, end(), conns)
}
