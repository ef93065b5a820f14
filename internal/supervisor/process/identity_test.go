package process

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is the user of that name in Debian, in a group that nobody has.
var nobody = &Identity{UID: 65534, GID: 65534, Groups: []int{44444, 65534}, Name: "nobody", Home: "/nonexistent"}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can start a process as another user")
	}
}

// finished runs spec to its end and returns what it printed.
func finished(t *testing.T, spec Spec) string {
	t.Helper()
	var lines []string
	spec.Line = func(_ int, l string) { lines = append(lines, l) }
	p, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Signal(syscall.SIGKILL) })
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the process did not end")
	}
	return strings.Join(lines, "\n")
}

// TestRunsAsAnotherUser, found by descriptor, in a directory that this user may not enter.
func TestRunsAsAnotherUser(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	shell := copyOf(t, "sh", filepath.Join(dir, "shell"))
	const script = `id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; echo said >/dev/stderr; umask; ulimit -Sn; ulimit -Hn; ulimit -Hc; ls /proc/self/fd >/dev/null && echo own`
	got := finished(t, Spec{
		Path: shell.Name(), Args: []string{"shell", "-c", script}, Env: os.Environ(), Executable: shell, Identity: nobody,
		Limits: Limits{Umask: 0o027, Resources: []Rlimit{{"nofile", 200}, {"core", 0}}},
	})
	want := "65534\n65534\n65534 44444\nNoNewPrivs:\t1\nsaid\n0027\n200\n200\n0\nown"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestGainsNothing: no_new_privs holds for a process of our own user as well.
func TestGainsNothing(t *testing.T) {
	got := finished(t, Spec{Path: "grep", Args: []string{"grep", "NoNewPrivs", "/proc/self/status"}, Env: os.Environ()})
	if got != "NoNewPrivs:\t1" {
		t.Errorf("%q", got)
	}
}

// copyOf copies a program to path and opens the copy.
func copyOf(t *testing.T, program, path string) *os.File {
	t.Helper()
	found, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestEnvironmentOfUser(t *testing.T) {
	env := []string{"A=1", "HOME=/root", "USER=root", "LOGNAME=root", "HOMES=2"}
	if got := fmt.Sprint(nobody.Environment(env)); got != "[A=1 HOMES=2 HOME=/nonexistent USER=nobody LOGNAME=nobody]" {
		t.Error(got)
	}
	if got := (*Identity)(nil).Environment(env); len(got) != len(env) {
		t.Error(got)
	}
}

// TestCheck finds what would keep a process from being started, and what it could not read.
func TestCheck(t *testing.T) {
	asRoot(t)
	closed := t.TempDir() // below a directory of mode 0700
	file := filepath.Join(closed, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Path: "/bin/true", Args: []string{"true"}, Env: os.Environ(), Identity: nobody}
	unreadable, limited, wrong := spec, spec, spec
	unreadable.Path = copyOf(t, "true", filepath.Join(closed, "true")).Name()
	wrong.Limits.Resources = []Rlimit{{"rss", 1}}
	limited.Limits.Resources = []Rlimit{{"core", 0}, {"nofile", limit.Max}}
	for _, c := range []struct {
		name  string
		spec  Spec
		reach Reach
		want  Obstacle
	}{
		{"nothing", spec, Reach{Dir: "/", Files: []string{"/etc/passwd"}}, Obstacle{}},
		{"limits within the hard ones", limited, Reach{}, Obstacle{}},
		{"file", spec, Reach{Files: []string{"/etc/passwd", file}}, Obstacle{Path: file, What: "read " + file + " as user nobody: permission denied"}},
		{"directory", spec, Reach{Dir: closed}, Obstacle{Path: closed, What: "enter " + closed + " as user nobody: permission denied"}},
		{"program", unreadable, Reach{}, Obstacle{Path: unreadable.Path, What: "execute " + unreadable.Path + " as user nobody: permission denied"}},
		{"limit of no name", wrong, Reach{}, Obstacle{What: "set limit rss: there is none of that name"}},
	} {
		found, err := Check(c.spec, c.reach)
		if found == nil {
			found = &Obstacle{}
		}
		if err != nil || found.What != c.want.What || found.Path != c.want.Path {
			t.Errorf("%s: %+v, %v, want %+v", c.name, *found, err, c.want)
		}
	}
}

// TestCheckOfLimits that are above the hard one, by a user without privileges.
func TestCheckOfLimits(t *testing.T) {
	asRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r := Rlimit{"nofile", limit.Max + 1}
	order, err := json.Marshal(stepOrder{Path: "/bin/true", Keep: 3, Check: &Reach{}, Limits: Limits{Resources: []Rlimit{r}}})
	if err != nil {
		t.Fatal(err)
	}
	program := copyOf(t, self, filepath.Join(t.TempDir(), "step")) // beside the user's reach: by descriptor
	cmd := exec.Command("/proc/self/fd/3")
	cmd.Args, cmd.ExtraFiles = []string{StepName, string(order)}, []*os.File{program}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput() // the step ends with a status of its own
	var found Obstacle
	want := fmt.Sprintf("set limit nofile to %d, above the hard limit of %d: operation not permitted", limit.Max+1, limit.Max)
	if err := json.Unmarshal(out, &found); err != nil || found.Limit != "nofile" || found.What != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

// TestEndsWithItsParent: a change of user does not end that.
func TestEndsWithItsParent(t *testing.T) {
	asRoot(t)
	if os.Getenv("PARENT") != "" {
		p, err := Start(Spec{Path: "sleep", Args: []string{"sleep", "1000"}, Env: os.Environ(), Group: true, Identity: nobody, Line: func(int, string) {}})
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID)); string(comm) == "sleep\n" {
				break
			}
		}
		fmt.Println("child", p.PID)
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestEndsWithItsParent$")
	parent.Env = append(os.Environ(), "PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parent.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = parent.Process.Kill()
	if err := parent.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Error(err)
	}
	child, err2 := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "child ")))
	if err := errors.Join(err, err2); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if zombie(child) {
			return
		}
	}
	_ = syscall.Kill(child, syscall.SIGKILL)
	t.Errorf("process %d outlives its parent", child)
}

// TestRaisedScore: what is raised is raised once.
func TestRaisedScore(t *testing.T) {
	own, ok := oomScore("self")
	if !ok {
		t.Skip("skipped: no /proc")
	}
	want := min(own+50, maxOOMScore) - own
	base := exec.Command("sleep", "1000") // has our score, as the main process has
	if err := base.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = base.Process.Kill(); _ = base.Wait() }()
	for range 2 {
		if above := RaiseOOMScore(base.Process.Pid, 50); above != want {
			t.Errorf("%d above, want %d", above, want)
		}
		if now, _ := oomScore("self"); now != own+want {
			t.Errorf("%d, want %d", now, own+want)
		}
	}
	_ = os.WriteFile(oomScoreFile("self"), []byte(strconv.Itoa(own)), 0)
}
