package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

// trial is a service of one worker that is measured: this program's own, on sockets in a private
// directory, with the models and the engine of the service that is planned for.
type trial struct {
	dir   string
	cmd   *exec.Cmd
	log   *os.File
	admin *admin.Client
	ended chan struct{} // closed when the main process has
}

// startTrial returns when the service is ready. It ends with this process: its main process gets
// TERM when the thread that started it ends, so that the caller keeps its thread.
func startTrial(ctx context.Context, cfg *config.Config) (t *trial, err error) {
	t = &trial{ended: make(chan struct{})}
	if t.dir, err = os.MkdirTemp("", "preforkd-plan-"); err != nil {
		return nil, fmt.Errorf("make a directory for the measurement: %w", err)
	}
	if t.log, err = os.Create(filepath.Join(t.dir, "log")); err == nil {
		err = t.start(ctx, cfg)
	}
	if err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

func (t *trial) start(ctx context.Context, cfg *config.Config) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe for the measurement: %w", err)
	}
	t.cmd = exec.Command(self, t.args(cfg)...)
	t.cmd.Stdout, t.cmd.Stderr, t.cmd.Env = write, t.log, trialEnv(os.Environ())
	// A group of its own: a terminal's Ctrl-C is for this process, which then ends it.
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	err = t.cmd.Start()
	write.Close()
	if err != nil {
		t.cmd = nil
		read.Close()
		return fmt.Errorf("start a service to measure: %w", err)
	}
	ready := make(chan bool, 1)
	go func() { // ends with the main process
		lines := bufio.NewReader(read)
		_, err := lines.ReadString('\n') // it is ready
		ready <- err == nil
		_, _ = io.Copy(io.Discard, lines) // who has nobody to write to is killed
		read.Close()
		_ = t.cmd.Wait() // how it ended is in its log
		close(t.ended)
	}()
	cut := context.AfterFunc(ctx, func() { t.cmd.Process.Signal(syscall.SIGINT) })
	defer cut()
	if !<-ready {
		<-t.ended
		return errors.Join(ctx.Err(), t.failure())
	}
	t.admin, err = admin.Dial(filepath.Join(t.dir, "admin"))
	return err
}

// args are those settings of cfg that decide what a worker costs.
func (t *trial) args(cfg *config.Config) []string {
	args := []string{"serve", "--workers", "1", "--listen", "unix:" + t.socket(), "--models", cfg.Models.Dir}
	for _, s := range []struct{ key, value string }{
		{"admin", filepath.Join(t.dir, "admin")},
		{"ops.listen", config.OpsOff},
		{"log.level", "warn"},
		{"cache.dir", cfg.CacheDir(os.Getenv, os.Getuid())},
		{"user", string(cfg.User)},
		{"group", string(cfg.Group)},
		{"inference.library", cfg.Inference.Library},
		{"inference.custom_ops", strings.Join(cfg.Inference.CustomOps, ",")},
		{"concurrency.limit", cfg.Concurrency.Limit.String()},
		{"timeouts.boot", cfg.Timeouts.Boot.String()},
		{"timeouts.request", cfg.Timeouts.Request.String()},
		{"http.max_body", cfg.HTTP.MaxBody.String()},
	} {
		if s.value != "" {
			args = append(args, "--set", s.key+"="+s.value)
		}
	}
	for _, g := range cfg.Groups {
		args = append(args, "--set", "groups="+string(g))
	}
	return args
}

func (t *trial) socket() string { return filepath.Join(t.dir, "http") }

// trialEnv is env without what configures a service or belongs to the one that started this command.
func trialEnv(env []string) (clean []string) {
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "PREFORKD_") || strings.HasPrefix(name, "LISTEN_") || name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC" || name == "WATCHDOG_PID" {
			continue
		}
		clean = append(clean, v)
	}
	return clean
}

// failure says why the service did not become ready, in its own words.
func (t *trial) failure() error {
	text, err := os.ReadFile(t.log.Name())
	if text = bytes.TrimSpace(text); err != nil || len(text) == 0 {
		text = fmt.Appendf(nil, "it ended with %v", t.cmd.ProcessState)
	}
	const most = 4 << 10
	return &ipc.Failure{
		Exit: max(t.cmd.ProcessState.ExitCode(), ipc.ExitOther), What: "the service that was to be measured did not start:\n" + string(text[max(0, len(text)-most):]),
		Try: "correct that, or give --cores, --memory, --model-memory and --latency",
	}
}

// stop ends the service and removes what it left.
func (t *trial) stop() {
	if t.admin != nil {
		t.admin.Close()
	}
	if t.cmd != nil {
		_ = t.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		<-t.ended
	}
	if t.log != nil {
		t.log.Close()
	}
	_ = os.RemoveAll(t.dir)
}

// pids returns those of main process and supervisor, and of the workers.
func (t *trial) pids(ctx context.Context) (own, workers []int, err error) {
	st, err := t.admin.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range st.Pools {
		for _, s := range p.Slots {
			if s.PID > 0 {
				workers = append(workers, s.PID)
			}
		}
	}
	if len(workers) == 0 {
		return nil, nil, errors.New("the worker that was measured has ended")
	}
	return []int{t.cmd.Process.Pid, st.PID}, workers, nil
}

// locked runs f on one thread, which then ends with it.
func locked(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}
