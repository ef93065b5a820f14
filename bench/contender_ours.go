package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
)

var ourselves = contender{
	name: ours,
	prepare: func(ctx context.Context, l *lab) (string, error) {
		version, err := l.output(ctx, l.bin("preforkd"), "version")
		if err != nil {
			return "", err
		}
		return strings.TrimSpace(version) + "; POST /predict to the model digits, beside three more models; preforkd reload", nil
	},
	deploy: deployOurs,
	spec: func(s *stage) proc.Spec {
		return proc.Spec{
			Name: ours, Dir: s.l.root, Log: s.log(), Env: s.l.environment(),
			Args: []string{s.l.bin("preforkd"), "serve", "-c", s.path("preforkd.yaml")},
		}
	},
	trigger: reloadOurs,
	waits:   true,
	worker:  func(cmdline string) bool { return strings.Contains(cmdline, "preforkd-worker") },
	// The same 64 numbers as in the scenario serve.
	request:  load.Post("/predict", "application/json", []byte(`{"features":[0`+strings.Repeat(",8", 63)+`]}`)),
	versions: []version{slow, failing, hanging, hangsInTest, crashesInTest, crashing},
}

// deployOurs writes configuration and models. What a version does at boot it does in
// front of our worker: the supervisor starts it as worker.command.
func deployOurs(s *stage, v version) error {
	worker := s.l.bin("preforkd-worker")
	command := map[version]string{
		slow:    fmt.Sprintf(`[/bin/sh, -c, "sleep %v; exec \"$0\"", %s]`, slowBoot.Seconds(), worker),
		failing: `[/bin/sh, -c, "echo 'this version fails at boot' >&2; exit 1"]`,
		hanging: `[/bin/sleep, "1000"]`,
	}[v]
	if command == "" {
		command = "[" + worker + "]"
	}
	clocks := "{}"
	switch v {
	case hanging:
		clocks = "{boot: 2s}"
	case hangsInTest:
		clocks = "{request: 2s}" // bounds a self-test too
	}
	text := fmt.Sprintf(`listen: ["%s"]
workers: %d
models: %s
predict: {model: digits}
http: {worker_header: true}
cache: {dir: %s}
admin: %s
worker: {kind: preforkd, command: %s}
timeouts: %s
%s
`, s.address(), workersEach, s.path("models"), filepath.Join(s.l.dir, "cache"), s.path("admin.sock"), command, clocks, s.settings)
	models := s.path("models")
	if _, err := os.Stat(models); err != nil {
		if err := os.CopyFS(models, os.DirFS(filepath.Join(s.l.root, "models"))); err != nil {
			return err
		}
	}
	s.onLine = strikes[v]
	return errors.Join(warmUp(filepath.Join(models, "digits-cnn", "warmup.json"), v), os.WriteFile(s.path("preforkd.yaml"), []byte(text), 0o644))
}

// warmUp gives a version that hangs or crashes in its self-test one that lasts for a
// while, so that it is struck within it; any other none.
func warmUp(path string, v version) error {
	if v != hangsInTest && v != crashesInTest {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	}
	const rows, cases = 1000, 20
	one := fmt.Sprintf(`{"request":{"inputs":[{"name":"pixels","shape":[%d,64],"datatype":"FP32","data":[0%s]}]}}`,
		rows, strings.Repeat(",0", 64*rows-1))
	return os.WriteFile(path, []byte("["+one+strings.Repeat(","+one, cases-1)+"]"), 0o644)
}

// strikes are what happens to the canary at a line of the reload's progress: it stops
// for good, or has a segmentation fault.
var strikes = map[version]func(line string, s *stage){
	hangsInTest:   strike("self-test: ", 0, syscall.SIGSTOP),
	crashesInTest: strike("self-test: ", 0, syscall.SIGSEGV),
	crashing:      strike("trial: ", 300*time.Millisecond, syscall.SIGSEGV), // it has got connections by then
}

// strike sends the canary a signal some time after a phase has begun. It notes how many
// connections the canary has then: so many requests can be inside it.
func strike(phase string, after time.Duration, sig syscall.Signal) func(string, *stage) {
	return func(line string, s *stage) {
		pid := 0
		if !strings.HasPrefix(line, phase) {
			return
		}
		time.Sleep(after)
		if pid = s.canary(); pid == 0 {
			return // it has ended already; the reload says why
		}
		_ = syscall.Kill(pid, syscall.SIGSTOP) // so that what is counted does not change
		s.inside = s.connections(pid)
		_ = syscall.Kill(pid, sig)
		if sig != syscall.SIGSTOP {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

// connections counts those to the stage's port that a process has open.
func (s *stage) connections(pid int) (n int) {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0
	}
	inodes := map[string]bool{}
	local, established := fmt.Sprintf(":%04X", s.port), "01"
	for line := range strings.Lines(string(text)) {
		// sl local rem st tx:rx tr:when retrnsmt uid timeout inode, proc_net_tcp in the kernel's documentation
		if f := strings.Fields(line); len(f) > 9 && strings.HasSuffix(f[1], local) && f[3] == established {
			inodes["socket:["+f[9]+"]"] = true
		}
	}
	links, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		return 0
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && inodes[to] {
			n++
		}
	}
	return n
}

// canary returns the process id of the new generation's first worker; 0: there is none.
func (s *stage) canary() int {
	client, err := admin.Dial(s.path("admin.sock"))
	if err != nil {
		return 0
	}
	defer client.Close()
	st, err := client.Status(context.Background())
	if err != nil {
		return 0
	}
	for _, slot := range st.Pools[0].Slots {
		if slot.Generation > st.Generation {
			return slot.PID
		}
	}
	return 0
}

// reloadOurs runs preforkd reload.
func reloadOurs(ctx context.Context, s *stage) (said string, exit int, err error) {
	return commandOurs(ctx, s, "reload")
}

// commandOurs runs a command of preforkd and follows its progress.
func commandOurs(ctx context.Context, s *stage, args ...string) (said string, exit int, err error) {
	cmd := exec.CommandContext(ctx, s.l.bin("preforkd"), append(args, "--admin", s.path("admin.sock"))...)
	progress, err := cmd.StderrPipe()
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	for lines := bufio.NewScanner(progress); lines.Scan(); {
		line := lines.Text()
		if s.onProgress != nil {
			s.onProgress(line)
		}
		if s.onLine != nil {
			s.onLine(line, s)
		}
		if text, ok := strings.CutPrefix(line, "preforkd: "); ok {
			said = text
		}
	}
	err = cmd.Wait()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		return said, 0, err
	}
	return said, cmd.ProcessState.ExitCode(), nil
}
