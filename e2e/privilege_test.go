package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// nobody is the user without privileges that Debian has. A service of root's may start workers
// as it; everybody else's test is skipped.
func nobody(t *testing.T) *user.User {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can start workers as another user")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	return u
}

// reachable is a directory of the test's own that every user may enter.
func reachable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// asNobody is a configuration file whose workers are nobody's.
const asNobody = "user: nobody\n"

// statusOf returns the values of a line of /proc/PID/status (proc_pid_status(5)).
func statusOf(t *testing.T, pid int, key string) []string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Fields(rest)
		}
	}
	t.Fatalf("process %d has no %s", pid, key)
	return nil
}

// belongs checks that all workers of s, of which there are some, run as u and gain nothing.
func belongs(t *testing.T, s *testkit.Service, u *user.User) {
	t.Helper()
	s.Supervisor()
	workers := s.Workers()
	if len(workers) == 0 {
		t.Error("there is no worker")
	}
	for _, pid := range workers {
		owned(t, pid, u)
	}
}

func owned(t *testing.T, pid int, u *user.User) {
	t.Helper()
	for key, want := range map[string]string{"Uid": u.Uid, "Gid": u.Gid} {
		if got := statusOf(t, pid, key); !slices.Equal(got, []string{want, want, want, want}) {
			t.Errorf("worker %d: %s %v, want %s", pid, key, got, want)
		}
	}
	if got := statusOf(t, pid, "NoNewPrivs"); got[0] != "1" {
		t.Errorf("worker %d: NoNewPrivs %v", pid, got)
	}
	if u.Uid == "0" {
		return
	}
	for _, set := range []string{"CapPrm", "CapEff"} {
		if got := statusOf(t, pid, set)[0]; strings.Trim(got, "0") != "" {
			t.Errorf("worker %d: %s %s", pid, set, got)
		}
	}
}

// TestPrivilegesOfWorkers: user, groups, limits and oom_score_adj, at a port that only root may
// bind.
func TestPrivilegesOfWorkers(t *testing.T) {
	u := nobody(t)
	address := privileged(t)
	s := testkit.Start(t, testkit.Options{Listen: []string{address}, Config: asNobody + `groups: [4711, daemon]
worker: {oom_score_adj: 300, limits: {nofile: 1000, core: 0, stack: 4MiB, memlock: 64KiB}}
`})
	belongs(t, s, u)
	pid := s.Workers()[0]
	daemon, err := user.LookupGroup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	got, want := statusOf(t, pid, "Groups"), []string{u.Gid, "4711", daemon.Gid}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("groups %v, want %v", got, want)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Max open files": "1000 1000 files", "Max core file size": "0 0 bytes", "Max stack size": "4194304 4194304 bytes", "Max locked memory": "65536 65536 bytes",
	} {
		_, rest, _ := strings.Cut(string(limits), name)
		line, _, _ := strings.Cut(rest, "\n")
		if got := strings.Join(strings.Fields(line), " "); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	scores(t, s, 300)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []string{"HOME=" + u.HomeDir, "USER=nobody", "LOGNAME=nobody"} {
		if !bytes.Contains(environ, []byte("\x00"+e+"\x00")) || bytes.Count(environ, []byte("\x00"+strings.Split(e, "=")[0]+"=")) != 1 {
			t.Errorf("no %s in %q", e, environ)
		}
	}
	if status, text := post(t, s.URL+"/predict", body(sample)); status != 200 {
		t.Errorf("%d: %s", status, text)
	}
}

// privileged returns an address with a free port below 1024.
func privileged(t *testing.T) string {
	t.Helper()
	for port := 1023; port > 512; port-- {
		address := "127.0.0.1:" + strconv.Itoa(port)
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
			return address
		}
	}
	t.Skip("skipped: no port below 1024 may be bound")
	return ""
}

// scores checks that the main process has the lowest oom_score_adj, then the supervisor, and
// every worker so much more than the main process.
func scores(t *testing.T, s *testkit.Service, worker int) {
	t.Helper()
	of := func(pid int) int {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	main := of(s.Main)
	if got := of(s.Supervisor()); got != main+50 {
		t.Errorf("supervisor %d, main process %d", got, main)
	}
	for _, pid := range s.Workers() {
		if got := of(pid); got != min(main+worker, 1000) {
			t.Errorf("worker %d, main process %d", got, main)
		}
	}
}

// TestPrivilegesAreAsked: what a service may not do, or nobody has said, ends its start.
func TestPrivilegesAreAsked(t *testing.T) {
	nobody(t)
	closed := t.TempDir() // below a directory that only root may enter
	unseeing := without("sys_ptrace")
	unseeing.Config += "worker: {dir: /, command: [/bin/sleep, \"1000\"]}\n"
	for _, c := range []struct {
		name  string
		o     testkit.Options
		exit  int
		words []string
	}{
		{"root without user", testkit.Options{Env: []string{"PREFORKD_USER="}}, ipc.ExitConfig, []string{
			"preforkd: user: the service was started as root, and it is not said whom its workers shall run as", "try: set user to one without privileges, or to root",
		}},
		{"pool of a missing user", testkit.Options{Config: asNobody + "pools: {web: {user: no-such-user, worker: {command: [/bin/sleep, \"1000\"]}}}\n"}, ipc.ExitConfig, []string{
			`preforkd: pools.web.user: there is no user "no-such-user"`, "try: useradd --system --no-create-home no-such-user, or set user to one that exists (getent passwd)",
		}},
		{"cache that the user cannot reach", testkit.Options{Config: asNobody, Cache: filepath.Join(closed, "cache")}, ipc.ExitPermission, []string{
			"preforkd: cache.dir: read " + closed, "as user nobody: permission denied", "try: let user nobody enter the directories above it",
		}},
		{"directory that the user cannot reach", testkit.Options{Config: asNobody + "worker: {command: [/bin/sleep, \"1000\"], dir: " + closed + "}\n"}, ipc.ExitPermission, []string{
			"preforkd: worker.dir: enter " + closed + " as user nobody: permission denied", "or set worker.dir to another directory",
		}},
		{"script that the user cannot reach", testkit.Options{Config: asNobody + "worker: {dir: /, command: [" + program(t, "#!/bin/sh\nexec sleep 1000\n") + "]}\n"}, ipc.ExitPermission, []string{
			"preforkd: worker.command: execute ", "as user nobody: permission denied",
		}},
		{"without CAP_KILL", without("kill"), ipc.ExitPermission, []string{"preforkd: user: signal workers of user nobody: operation not permitted", "CAP_KILL"}},
		{"without CAP_SETUID", without("setuid"), ipc.ExitPermission, []string{"preforkd: user: become user nobody: operation not permitted", "CAP_SETUID"}},
		{"without CAP_SYS_PTRACE", unseeing, ipc.ExitPermission, []string{"preforkd: worker.ready: this service may not look which process of user nobody answers", "CAP_SYS_PTRACE"}},
		{"without CAP_SETGID", without("setgid"), ipc.ExitPermission, []string{"preforkd: user: take the groups [65534] of nobody: operation not permitted", "CAP_SETGID"}},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, c.o, c.exit, c.words...) })
	}
}

// without starts a service that lacks a capability.
func without(capability string) testkit.Options {
	return testkit.Options{Config: asNobody, Wrap: []string{"setpriv", "--bounding-set=-" + capability, "--"}}
}

// launchAs starts the service of another user, with programs, settings and, unless o says where, a
// cache in dir, which is reachable.
func launchAs(t *testing.T, u *user.User, dir string, o testkit.Options) *testkit.Service {
	t.Helper()
	if o.Cache == "" {
		o.Cache = filepath.Join(dir, "cache")
	}
	o.Env = append(o.Env, "PREFORKD_USER=", "HOME=/nonexistent")
	cmd := o.Command(t)
	// The program must be within its reach, and so must the file of settings.
	programs := filepath.Join(dir, "programs")
	if err := os.MkdirAll(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	install(t, programs)
	cmd.Path = filepath.Join(programs, "preforkd")
	cmd.Args[0] = cmd.Path
	if i := slices.Index(cmd.Args, "-c"); i > 0 {
		moved := filepath.Join(dir, "preforkd.yaml")
		write(t, moved, o.Config)
		cmd.Args[i+1] = moved
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd.Dir = dir
	uid, gid := idsOf(t, u)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return testkit.LaunchCommand(t, cmd)
}

func idsOf(t *testing.T, u *user.User) (uid, gid int) {
	t.Helper()
	uid, err := strconv.Atoi(u.Uid)
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// TestPrivilegesWithoutRoot: nobody's service runs nobody's workers, and no one else's; a limit
// above the hard one is refused.
func TestPrivilegesWithoutRoot(t *testing.T) {
	u := nobody(t)
	start := func(t *testing.T, o testkit.Options) *testkit.Service {
		t.Helper()
		return launchAs(t, u, reachable(t), o)
	}
	for _, c := range []struct {
		name, config string
		exit         int
		words        string
	}{
		{"another user", "user: daemon\n", ipc.ExitPermission, "preforkd: user: only a service that root has started can run its workers as daemon; this one is user " + u.Uid + "'s"},
		{"another group", "group: daemon\n", ipc.ExitPermission, "preforkd: group: only a service that root has started can run its workers in group daemon"},
		{"limit", "worker: {limits: {nofile: 100000000}}\n", ipc.ExitPermission, "preforkd: worker.limits.nofile: set limit nofile to 100000000, above the hard limit of "},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, testkit.Options{Config: c.config})
			if got, text := s.Wait(), s.LogText(); got != c.exit || !strings.Contains(text, c.words) {
				t.Errorf("exit status %d, want %d: %s", got, c.exit, text)
			}
		})
	}
	t.Run("itself", func(t *testing.T) {
		s := start(t, testkit.Options{Config: asNobody})
		s.Await("READY=1")
		belongs(t, s, u)
	})
}

// TestPrivilegesOfReloads: from root to nobody and back, under clients that must not notice. A
// user that does not exist is refused, and so is none.
func TestPrivilegesOfReloads(t *testing.T) {
	u := nobody(t)
	root, err := user.LookupId("0")
	if err != nil {
		t.Fatal(err)
	}
	const conns = 32
	s, socket := reloadable(t, testkit.Options{Config: "user: root\n"})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	belongs(t, s, root)
	scores(t, s, 200)

	write(t, s.Config, asNobody)
	answers(t, g, 100)
	must(t, socket, []string{"reload"}, "user: root -> nobody", "generation 2 serves")
	belongs(t, s, u)
	for text, words := range map[string]string{
		"user: no-such-user\n":   `user: there is no user "no-such-user"`,
		"log: {level: info}\n":   "user: the service was started as root",
		asNobody + "group: zz\n": `group: there is no group "zz"`,
	} {
		write(t, s.Config, text)
		ends(t, socket, []string{"reload"}, ipc.ExitConfig, words, "try: ")
		belongs(t, s, u)
	}
	must(t, socket, []string{"rollback"}, "generation")
	belongs(t, s, root)
	must(t, socket, []string{"rollback"}, "generation")
	belongs(t, s, u)
	scores(t, s, 200)
	answers(t, g, 100)
	untouched(t, end(), conns)
}

// TestPrivilegesStay through a worker's crash, an upgrade and the death of the supervisor, which
// reads no configuration: nor does its successor ask who the user is.
func TestPrivilegesStay(t *testing.T) {
	u := nobody(t)
	const conns = 16
	s, socket := reloadable(t, testkit.Options{Config: asNobody})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	answers(t, g, 100)
	upgradeTo(t, s, socket, installation(t))
	belongs(t, s, u)
	scores(t, s, 200)

	write(t, s.Config, "user: no-such-user\n")
	for range 2 {
		answers(t, g, 100)
		killSupervisor(t, s, socket)
		belongs(t, s, u)
		scores(t, s, 200)
	}
	answers(t, g, 100)
	untouched(t, end(), conns)

	n := s.Reports()
	kill(t, s.Workers()[0], syscall.SIGKILL)
	n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
	s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	belongs(t, s, u)
}

// TestPrivilegesOfOtherPrograms: they run as the user of their pool, are probed, and end with
// their supervisor.
func TestPrivilegesOfOtherPrograms(t *testing.T) {
	u := nobody(t)
	dir := reachable(t)
	path := filepath.Join(dir, "server.py")
	needs(t, "python3", python, "--version")
	write(t, path, server)
	config := fmt.Sprintf("user: root\npools:\n  web:\n    user: nobody\n    listen: [\"127.0.0.2:0\"]\n    workers: 2\n    worker: {dir: %s, command: [%s, %s, fine, \"{fd}\", \"{probe}\"]}\n", dir, python, path)
	s, socket := reloadable(t, testkit.Options{Config: config, Workers: 1})
	web := func() (pids []int) {
		for _, p := range status1(t, socket).Pools {
			for _, slot := range p.Slots {
				if p.Name == "web" && slot.State == "ready" {
					pids = append(pids, slot.PID)
				}
			}
		}
		return pids
	}
	before := web()
	if len(before) != 2 {
		t.Fatalf("%+v", status1(t, socket).Pools)
	}
	for _, pid := range before {
		owned(t, pid, u)
	}
	kill(t, s.Supervisor(), syscall.SIGKILL)
	for _, pid := range before {
		testkit.Gone(t, pid)
	}
	if err := testkit.Await(func() bool {
		out, code := command(t, socket, "status")
		return code == 0 && !strings.Contains(out, "starting") && len(web()) == 2
	}); err != nil {
		t.Fatal(err)
	}
	for _, pid := range web() {
		owned(t, pid, u)
	}
}

// TestPrivilegesGainNothing: a program of a worker that would make it root's does not.
func TestPrivilegesGainNothing(t *testing.T) {
	u := nobody(t)
	dir := reachable(t)
	id, err := exec.LookPath("id")
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	data, err := os.ReadFile(id)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "id")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	refuses(t, testkit.Options{Config: asNobody + "worker: {dir: /, command: [" + path + ", -u]}\n"}, ipc.ExitBoot, "line="+u.Uid)
}
