package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// installed are the files of an installation.
var installed = []string{"preforkd", "preforkd-anchor", "preforkd-worker", "libonnxruntime.so.1"}

// install puts the programs into dir as a package does: beside, then renamed. What their
// names led to before goes on to exist for those who hold it.
func install(t *testing.T, dir string) {
	t.Helper()
	for _, name := range installed {
		replace(t, filepath.Join(dir, name), func(w io.Writer) error {
			r, err := os.Open(filepath.Join(testkit.Programs(t), name))
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(w, r)
			return err
		})
	}
}

func replace(t *testing.T, path string, fill func(io.Writer) error) {
	t.Helper()
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// site of a service that runs from an installation of its own.
func beginInstalled(t *testing.T, dir string) *site {
	t.Helper()
	install(t, dir)
	f := &site{t: t, last: 1, socket: filepath.Join(t.TempDir(), "admin.sock")}
	cmd := testkit.Options{Admin: f.socket, Set: append(slices.Clone(quickReload), "worker.max_crashes=1000", "worker.max_backoff=1ms")}.Command(t)
	cmd.Path, cmd.Args[0] = filepath.Join(dir, "preforkd"), "preforkd"
	f.Service = testkit.LaunchCommand(t, cmd)
	f.Await("READY=1")
	f.URL = "http://" + status1(t, f.socket).Listen[0]
	return f
}

// successor kills the worker of slot 0 and returns the one that takes its place, once it
// has served.
func (f *site) successor() int {
	f.t.Helper()
	generation := f.generation()
	old := f.worker(generation, 0)
	events, known := f.events(), f.Workers() // before: the one that follows must not be among them
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		f.t.Fatal(err)
	}
	events.successor(generation, known...)
	f.whole()
	for range 8 {
		if got, text := post(f.t, f.URL+"/predict/digits", body(sample)); got != 200 {
			f.t.Fatalf("%d: %s", got, text)
		}
	}
	return f.worker(generation, 0)
}

// TestRunningServiceKeepsItsPrograms takes the installation away, and breaks it, under a
// running service: crashed workers come back as they were, until a reload.
func TestRunningServiceKeepsItsPrograms(t *testing.T) {
	dir := t.TempDir()
	f := beginInstalled(t, dir)
	of := func(pid int, name string) string {
		t.Helper()
		text, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	worker := filepath.Join(dir, "preforkd-worker")
	for _, name := range installed {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	pid := f.successor()
	if got := of(pid, "exe"); got != worker+" (deleted)" {
		t.Errorf("the replacement runs %s", got)
	}
	for file, want := range map[string]string{"comm": "preforkd-worker\n", "cmdline": "preforkd-worker\x00"} {
		if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", file, got, err)
		}
	}
	if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid)); err != nil || !strings.Contains(string(maps), "libonnxruntime.so.1 (deleted)") {
		t.Errorf("the library is not the deleted one: %v", err)
	}

	for _, name := range installed {
		replace(t, filepath.Join(dir, name), func(w io.Writer) error {
			_, err := io.WriteString(w, "#!/bin/sh\necho half a package; exit 7\n")
			return err
		})
	}
	f.successor()
	if out, code := command(t, f.socket, "reload"); code != ipc.ExitRolledBack || !strings.Contains(out, "half a package") {
		t.Errorf("%d: %s", code, out)
	}
	if got := of(f.successor(), "exe"); got != worker+" (deleted)" {
		t.Errorf("the replacement runs %s", got)
	}

	install(t, dir)
	var held []int
	for range 4 { // three generations are kept, and what they need
		if out, code := command(t, f.socket, "reload"); code != 0 {
			t.Fatalf("%d: %s", code, out)
		}
		held = append(held, files(t, f.PID))
	}
	// A file of /proc or a cgroup may be open at the moment of a look.
	if testkit.Await(func() bool { return files(t, f.PID) <= held[2] }) != nil {
		t.Errorf("files held after each reload: %v, now %d", held, files(t, f.PID))
	}
	pid = f.successor()
	if got := of(pid, "exe"); got != worker {
		t.Errorf("after a reload a worker runs %s", got)
	}
}

// files counts the files that a process holds open: sockets and pipes come and go with
// whoever asks it something.
func files(t *testing.T, pid int) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasPrefix(to, "/") {
			n++
		}
	}
	return n
}

// TestForeignProgramKeepsItsName: one that is not ours is started by its name while that
// is what it was, and from what it was when it is not.
func TestForeignProgramKeepsItsName(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "a-worker")
	fill := func(w io.Writer) error {
		data, err := os.ReadFile(filepath.Join(testkit.Programs(t), "preforkd-worker"))
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	}
	replace(t, program, fill)
	f := &site{t: t, last: 1, socket: filepath.Join(t.TempDir(), "admin.sock")}
	f.Service = testkit.Start(t, testkit.Options{Admin: f.socket, Set: []string{"worker.kind=preforkd", "worker.command=" + program}})
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	pid := f.successor()
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || got != program+" (deleted)" {
		t.Errorf("the replacement runs %s, %v", got, err)
	}
	kill(t, pid, syscall.SIGKILL)
	f.whole()
}
