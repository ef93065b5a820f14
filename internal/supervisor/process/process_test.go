package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets this program be the exec step, as the supervisor's is.
func TestMain(m *testing.M) {
	if IsStep(os.Args) {
		fmt.Fprintln(os.Stderr, RunStep(os.Args))
		os.Exit(69)
	}
	os.Exit(m.Run())
}

// started is a process with the lines it has written.
type started struct {
	*Process
	mu    sync.Mutex
	lines []string
	line  chan string
}

func start(t *testing.T, limits Limits, descriptors []int, command ...string) *started {
	t.Helper()
	s := &started{line: make(chan string, 1000)}
	p, err := Start(Spec{
		Path: command[0], Args: command, Env: os.Environ(), Limits: limits, Descriptors: descriptors,
		Line: func(_ int, l string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lines = append(s.lines, l)
			s.line <- l
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Process = p
	t.Cleanup(func() { p.Signal(syscall.SIGKILL); <-p.Done() })
	return s
}

func (s *started) output(t *testing.T) string {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the process did not end")
	}
	return strings.Join(s.lines, "\n")
}

func TestOutputAndStatus(t *testing.T) {
	s := start(t, Limits{}, nil, "sh", "-c", `echo one; echo two >&2; printf 'bad \377 no end'; exit 7`)
	if got := s.output(t); got != "one\ntwo\nbad \uFFFD no end" {
		t.Errorf("%q", got)
	}
	if s.Exit().String() != "exit status 7" {
		t.Error(s.Exit())
	}
	s.Signal(syscall.SIGKILL) // to nobody
}

func TestKilled(t *testing.T) {
	s := start(t, Limits{}, nil, "sh", "-c", `echo up; exec sleep 1000`)
	<-s.line
	s.Signal(syscall.SIGKILL)
	s.output(t)
	if s.Exit().String() != "killed by signal 9" {
		t.Error(s.Exit())
	}
}

func TestExitInWords(t *testing.T) {
	for _, c := range []struct {
		exit Exit
		want string
	}{
		{Exit{Status: 0}, "exit status 0"},
		{Exit{Status: 7 << 8}, "exit status 7"},
		{Exit{Status: 137 << 8, OOM: true}, "exit status 137"}, // it was not it that was killed
		{Exit{Status: 9}, "killed by signal 9"},
		{Exit{Status: 9, OOM: true}, "killed by signal 9; the memory cgroup counts an OOM kill"},
		{Exit{Status: 11 | 0x80}, "killed by signal 11 (segmentation fault), core dumped"},
		{Exit{Status: 6}, "killed by signal 6 (aborted)"},
	} {
		if got := c.exit.String(); got != c.want {
			t.Errorf("%#x, %v: %q, want %q", uint32(c.exit.Status), c.exit.OOM, got, c.want)
		}
	}
}

// TestKillTakesTheGroup: what a killed program has started ends with it.
func TestKillTakesTheGroup(t *testing.T) {
	s := start(t, Limits{}, nil, "sh", "-c", `sleep 1000 & echo $!; wait`)
	child, err := strconv.Atoi(<-s.line)
	if err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGKILL)
	s.output(t)
	deadline := time.Now().Add(20 * time.Second)
	for syscall.Kill(child, 0) == nil && time.Now().Before(deadline) {
		if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err != nil || strings.Contains(string(state), ") Z ") {
			return // ended, and whoever adopted it has not looked yet
		}
		runtime.Gosched()
	}
	if syscall.Kill(child, 0) == nil {
		t.Errorf("process %d is left behind", child)
	}
}

func TestStepSetsWhatBelongsToTheProcess(t *testing.T) {
	os.Setenv("LISTEN_PID", "1")
	defer os.Unsetenv("LISTEN_PID")
	s := start(t, Limits{Umask: 0o027, OOMScoreAdj: 150, OpenFiles: 64, Batch: true, Nice: 3}, nil, "sh", "-c",
		`echo $LISTEN_PID $$; umask; cat /proc/self/oom_score_adj; ulimit -Sn; cut -d' ' -f6 /proc/$$/stat; pwd; readlink /proc/self/fd/0; cut -d' ' -f41,19 /proc/$$/stat`)
	lines := strings.Split(s.output(t), "\n")
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(own)))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	nice, err := strconv.Atoi(strings.Fields(string(stat))[18]) // proc_pid_stat(5); the name has no spaces
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(s.PID)
	want := []string{pid + " " + pid, "0027", strconv.Itoa(min(score+150, 1000)), "64", pid, "/", "/dev/null", strconv.Itoa(min(nice+3, 19)) + " 3"}
	if strings.Join(lines, "|") != strings.Join(want, "|") {
		t.Errorf("got  %q\nwant %q (the fifth is its session, the last nice value and policy: 3 is SCHED_BATCH)", lines, want)
	}
}

func TestDescriptorsInOrderAndNoOthers(t *testing.T) {
	var fds []int
	for _, text := range []string{"first", "second"} {
		fd, err := unix.MemfdCreate(text, unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	s := start(t, Limits{}, fds, "sh", "-c", "echo up; exec sleep 1000")
	<-s.line
	dir := fmt.Sprintf("/proc/%d/fd", s.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		got[e.Name()], _ = os.Readlink(filepath.Join(dir, e.Name()))
	}
	if len(got) != 5 || got["3"] != "/memfd:first (deleted)" || got["4"] != "/memfd:second (deleted)" {
		t.Errorf("the process holds %v", got)
	}
}

func TestMissingProgram(t *testing.T) {
	s := start(t, Limits{}, nil, filepath.Join(t.TempDir(), "none"))
	if got := s.output(t); !strings.Contains(got, "no such file") || s.Exit().Status.ExitStatus() != 69 {
		t.Errorf("%q, %v", got, s.Exit())
	}
}

func TestLongLinesComeInPieces(t *testing.T) {
	s := start(t, Limits{}, nil, "sh", "-c", `head -c 50000 /dev/zero | tr '\0' x; echo; echo end`)
	got := s.output(t)
	if strings.Count(got, "x") != 50000 || !strings.HasSuffix(got, "\nend") {
		t.Errorf("%d bytes", len(got))
	}
	for l := range strings.SplitSeq(got, "\n") {
		if len(l) > maxLine {
			t.Errorf("a line of %d bytes", len(l))
		}
	}
}

// TestGrandchildHoldsTheOutput: a process that the worker left behind must not keep
// its end from being seen, nor its last lines from arriving.
func TestGrandchildHoldsTheOutput(t *testing.T) {
	s := start(t, Limits{}, nil, "sh", "-c", `sleep 1000 & echo $!; exit 1`)
	got := s.output(t)
	pid, err := strconv.Atoi(got)
	if err != nil {
		t.Fatalf("%q", got)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestNothingLeaks starts and ends many: no descriptor, no zombie is left.
func TestNothingLeaks(t *testing.T) {
	before := descriptors(t)
	for range 50 {
		s := start(t, Limits{}, nil, "true")
		s.output(t)
	}
	if after := descriptors(t); after > before+1 { // the poller's own, made at first use
		t.Errorf("%d descriptors, %d before", after, before)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err == nil && strings.TrimSpace(string(children)) != "" {
		t.Errorf("children are left: %s", children)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\nb\r\n\n"), 2)
	f.Add([]byte("\xff\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		if chunk < 1 {
			return
		}
		var whole, pieces []string
		o := &output{line: func(l string) { whole = append(whole, l) }}
		o.take(data)
		p := &output{line: func(l string) { pieces = append(pieces, l) }}
		for rest := data; len(rest) > 0; {
			n := min(chunk, len(rest))
			p.take(rest[:n])
			rest = rest[n:]
		}
		if strings.Join(whole, "\x00") != strings.Join(pieces, "\x00") && len(data) < maxLine {
			t.Errorf("%q and %q", whole, pieces)
		}
	})
}

// TestExecutableIsWhatWasOpened: whatever the path leads to by now.
func TestExecutableIsWhatWasOpened(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "prog")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(sleep)
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
	defer f.Close()
	// names starts it and returns what the kernel calls it and executes, once it holds no
	// descriptor but the three: its loader opens a library or two for a moment.
	names := func(byName bool) (comm, exe string) {
		t.Helper()
		p, err := Start(Spec{Path: path, Args: []string{path, "1000"}, Env: os.Environ(), Executable: f, ByName: byName, Line: func(int, string) {}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { p.Signal(syscall.SIGKILL); <-p.Done() }()
		held := 0
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			exe, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
			entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
			if held = len(entries); strings.HasPrefix(exe, path) && held == 3 {
				data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID))
				return strings.TrimSpace(string(data)), exe
			}
			runtime.Gosched()
		}
		t.Fatalf("it runs %s and holds %d descriptors", exe, held)
		return "", ""
	}
	if comm, exe := names(true); comm != "prog" || exe != path {
		t.Errorf("by name: %s, %s", comm, exe)
	}
	if _, exe := names(false); exe != path {
		t.Errorf("by descriptor: %s", exe)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, byName := range []bool{true, false} {
		if _, exe := names(byName); exe != path+".old" {
			t.Errorf("after it was replaced, by name %v: %s", byName, exe)
		}
	}
}
