package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/ipc/notify"
)

// Limit is how long a test waits for an event that must come.
const Limit = 60 * time.Second

// Service is a running service.
type Service struct {
	t       testing.TB
	Main    int    // the main process
	PID     int    // the supervisor that Launch or Supervisor saw last
	URL     string // of the first TCP listener
	Log     string // path of its log
	Config  string // path of its configuration file, if Options gave one
	cmd     *exec.Cmd
	ended   chan struct{}
	endErr  error
	seen    map[int]bool // workers that were seen, to look for them afterwards
	reports *reports
	out     *bufio.Reader
	pipe    io.Closer
}

// reports are the messages that a supervisor sent to its NOTIFY_SOCKET.
type reports struct {
	mu    sync.Mutex // guards texts
	cond  *sync.Cond
	texts []string
	ended bool
}

// Options say what to start. The zero value serves the digit models with two
// workers on a port of the kernel's choice.
type Options struct {
	Models  string   // directory; empty: the repository's
	Workers int      // 0: 2
	Listen  []string // empty: 127.0.0.1:0
	Config  string   // text of a configuration file; empty: none
	Set     []string // further settings, KEY=VALUE
	Env     []string // further variables
	Bare    bool     // listeners and workers are the configuration file's affair
	Cache   string   // empty: one for all tests
	Admin   string   // path of the admin socket; empty: off
	Ops     string   // address of the operations listener; empty: off
	Store   *Store   // what the service manager keeps; nil: it keeps nothing
	Program string   // path of preforkd; empty: that of the tests
	Wrap    []string // a program that runs the command line after its own arguments
}

// Command returns the command line that o stands for.
func (o Options) Command(t testing.TB) *exec.Cmd {
	t.Helper()
	if o.Models == "" {
		o.Models = filepath.Join(Root(t), "models")
	}
	if o.Cache == "" {
		o.Cache = filepath.Join(Root(t), ".cache", "test-models")
	}
	if o.Admin == "" {
		o.Admin = "off"
	}
	if o.Ops == "" {
		o.Ops = "off"
	}
	args := []string{"serve", "--models", o.Models, "--set", "cache.dir=" + o.Cache, "--set", "admin=" + o.Admin, "--set", "ops.listen=" + o.Ops}
	if !o.Bare {
		args = append(args, o.size()...)
	}
	if o.Config != "" {
		file := filepath.Join(t.TempDir(), "preforkd.yaml")
		if err := os.WriteFile(file, []byte(o.Config), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-c", file)
	}
	for _, s := range o.Set {
		args = append(args, "--set", s)
	}
	if o.Program == "" {
		o.Program = filepath.Join(Programs(t), "preforkd")
	}
	args = slices.Concat(o.Wrap, []string{o.Program}, args)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all", "GORACE=atexit_sleep_ms=0")
	if os.Getuid() == 0 && !userSet.MatchString(o.Config) {
		cmd.Env = append(cmd.Env, AsRoot)
	}
	cmd.Env = append(cmd.Env, o.Env...)
	return cmd
}

// AsRoot lets root's service run root's workers; without a user it would not start.
const AsRoot = "PREFORKD_USER=root"

// userSet finds the setting in a configuration file, which the variable would beat.
var userSet = regexp.MustCompile(`(?m)^user:`)

// size is the part of the command line that Bare leaves out.
func (o Options) size() (args []string) {
	if o.Workers == 0 {
		o.Workers = 2
	}
	if len(o.Listen) == 0 {
		o.Listen = []string{"127.0.0.1:0"}
	}
	args = []string{"--workers", strconv.Itoa(o.Workers)}
	for _, l := range o.Listen {
		args = append(args, "--listen", l)
	}
	return args
}

// Start starts a service and waits until it is ready.
func Start(t testing.TB, o Options) *Service {
	t.Helper()
	s := Launch(t, o)
	s.Ready()
	return s
}

// Ready waits until a service that was launched is ready, and reads its line about that.
func (s *Service) Ready() {
	s.t.Helper()
	s.Await("READY=1")
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("read the ready line: %v", err)
	}
	for _, word := range strings.Fields(line) {
		if strings.HasPrefix(word, "http://") || strings.HasPrefix(word, "https://") {
			s.URL = word
			break
		}
	}
	s.Workers()
}

// Launch starts a service and does not wait. When the test ends the service is killed
// if it still runs, and nothing of it may be left.
func Launch(t testing.TB, o Options) *Service {
	t.Helper()
	cmd := o.Command(t)
	if o.Store == nil {
		return LaunchCommand(t, cmd)
	}
	given, started := o.Store.command(t, cmd)
	defer started()
	return launch(t, given, o.Store.listen)
}

// LaunchCommand is Launch for a command line of the test's own.
func LaunchCommand(t testing.TB, cmd *exec.Cmd) *Service {
	t.Helper()
	return launch(t, cmd, notify.Listen)
}

func launch(t testing.TB, cmd *exec.Cmd, listen func(func(notify.Message)) (*notify.Server, error)) *Service {
	t.Helper()
	r := &reports{}
	r.cond = sync.NewCond(&r.mu)
	server, err := listen(func(m notify.Message) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.texts = append(r.texts, m.Text)
		r.cond.Broadcast()
	})
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+server.Name())
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	s := &Service{t: t, Config: configOf(cmd.Args), Log: log.Name(), cmd: cmd, ended: make(chan struct{}), seen: map[int]bool{}, reports: r}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.pipe, s.out = read, bufio.NewReader(read)
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	s.Main = cmd.Process.Pid
	go func() { // ends with the main process
		s.endErr = cmd.Wait()
		r.mu.Lock()
		r.ended = true
		r.cond.Broadcast()
		r.mu.Unlock()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.cleanup()
		server.Close()
	})
	s.Supervisor()
	return s
}

// Supervisor returns the process id of the supervisor, which the main process may have
// started again, once there is one; of a service that has ended that of the last.
func (s *Service) Supervisor() int {
	s.t.Helper()
	if err := Await(func() bool {
		select {
		case <-s.ended:
			return true
		default:
		}
		for _, pid := range Children(s.t, s.Main) {
			if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && string(comm) == "preforkd\n" {
				s.PID = pid
				return true
			}
		}
		return false
	}); err != nil {
		s.t.Fatalf("no supervisor: %v", err)
	}
	return s.PID
}

// configOf returns the argument of -c.
func configOf(args []string) string {
	for i, a := range args {
		if a == "-c" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

func (s *Service) cleanup() {
	select {
	case <-s.ended:
	default:
		s.Workers()
		s.Signal(syscall.SIGTERM)
		s.Wait()
	}
	s.pipe.Close()
	for pid := range s.seen {
		if Await(func() bool { return !alive(pid) }) != nil {
			s.t.Errorf("worker %d is left behind", pid)
		}
	}
	if s.t.Failed() {
		if data, err := os.ReadFile(s.Log); err == nil {
			if len(data) > 20000 {
				data = data[len(data)-20000:]
			}
			s.t.Logf("log of the service:\n%s", data)
		}
	}
}

// Alive tells whether process pid runs.
func Alive(pid int) bool { return alive(pid) }

// alive tells whether pid runs; a zombie of somebody else's counts as ended.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// Await polls until cond holds, for what the kernel does and reports to nobody.
func Await(cond func() bool) error {
	deadline := time.Now().Add(Limit)
	for !cond() {
		if time.Now().After(deadline) {
			return errors.New("it did not come about")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// Await waits until the supervisor has sent a message with line in it, ever.
func (s *Service) Await(line string) {
	s.t.Helper()
	s.AwaitAfter(0, line)
}

// Reports returns how many messages the supervisor has sent, for AwaitAfter.
func (s *Service) Reports() int {
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	return len(s.reports.texts)
}

// ReportsSince returns the messages from number n on.
func (s *Service) ReportsSince(n int) []string {
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	return slices.Clone(s.reports.texts[n:])
}

// AwaitAfter waits until one of the messages from number n on has line in it, and
// returns the number of the one after.
func (s *Service) AwaitAfter(n int, line string) int {
	s.t.Helper()
	r := s.reports
	late := time.AfterFunc(Limit, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cond.Broadcast()
	})
	defer late.Stop()
	deadline := time.Now().Add(Limit)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := n; ; i++ {
		for i >= len(r.texts) {
			if r.ended || time.Now().After(deadline) {
				s.t.Fatalf("the supervisor did not report %q (ended: %v); it said %q", line, r.ended, r.texts)
			}
			r.cond.Wait()
		}
		for l := range strings.SplitSeq(r.texts[i], "\n") {
			if l == line {
				return i + 1
			}
		}
	}
}

// Workers returns the process ids of the supervisor's workers.
func (s *Service) Workers() []int {
	s.t.Helper()
	pids := Children(s.t, s.PID)
	for _, pid := range pids {
		s.seen[pid] = true
	}
	return pids
}

// Children returns the children of pid, from all its threads.
func Children(t testing.TB, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for f := range strings.FieldsSeq(string(data)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

// Descriptors returns how many descriptors pid holds.
func Descriptors(t testing.TB, pid int) int {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// Signal sends sig to the main process, as operators do.
func (s *Service) Signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
}

// Wait waits until the service has ended and returns its exit status, -1 if a
// signal ended it.
func (s *Service) Wait() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(Limit):
		s.t.Errorf("the supervisor does not end; it is killed")
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	return s.cmd.ProcessState.ExitCode()
}

// Line returns the next line of standard output.
func (s *Service) Line() string {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("read standard output: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// LogText returns the log so far: standard error of the supervisor.
func (s *Service) LogText() string {
	s.t.Helper()
	data, err := os.ReadFile(s.Log)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// Ended tells whether the service has.
func (s *Service) Ended() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Reported tells whether the service has sent a message with line in it.
func (s *Service) Reported(line string) bool {
	for _, text := range s.ReportsSince(0) {
		if slices.Contains(strings.Split(text, "\n"), line) {
			return true
		}
	}
	return false
}
