package bench

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"preforkd/internal/ipc"
)

// shape is what an experiment runs on.
type shape struct {
	workers int
	cores   int // of each worker
}

// service is a throw-away service that runs.
type service struct {
	socket string
	cmd    *exec.Cmd
	log    string
	ended  chan struct{} // closed when the process has
}

// server starts services of one kind.
type server interface {
	start(ctx context.Context, dir string, s shape) (*service, error)
}

// launch starts cmd, whose standard error goes to a log in dir. It ends with the thread that
// started it.
func launch(cmd *exec.Cmd, dir, socket string, out *os.File) (*service, error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if cmd.Stdout = log; out != nil {
		cmd.Stdout = out
	}
	// A group of its own: a terminal's Ctrl-C is for this process, which then ends it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	s := &service{socket: socket, cmd: cmd, log: log.Name(), ended: make(chan struct{})}
	go func() { // ends with the process
		_ = cmd.Wait() // how it ended is in its log
		close(s.ended)
	}()
	return s, nil
}

// stopLimit is how long a service may take to end: nothing is in flight.
const stopLimit = 10 * time.Second

// stop ends the service.
func (s *service) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // its group
		<-s.ended
	}
}

// failure says why it did not start, in its own words.
func (s *service) failure(what string) error {
	const most = 4 << 10
	text, err := os.ReadFile(s.log)
	if text = bytes.TrimSpace(text); err != nil || len(text) == 0 {
		text = fmt.Appendf(nil, "it ended with %v", s.cmd.ProcessState)
	}
	return &ipc.Failure{
		Exit: ipc.ExitUnavailable, What: what + " did not start:\n" + string(text[max(0, len(text)-most):]), Try: "correct that",
	}
}

// environment is env without what configures a service or belongs to the one that started this
// command.
func environment(env []string, more ...string) (clean []string) {
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "PREFORKD_"), strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "WATCHDOG_"):
		case name == "NOTIFY_SOCKET", name == "GOMAXPROCS", name == "WEB_CONCURRENCY", name == "PORT":
		default:
			clean = append(clean, v)
		}
	}
	return append(clean, more...)
}

// ours starts preforkd.
type ours struct {
	path string
	env  []string
}

// settings have a route for each path of the experiments.
func (o ours) settings(dir string, s shape) string {
	user := ""
	if os.Getuid() == 0 {
		user = "user: root\n"
	}
	return fmt.Sprintf(`%slisten: [%q]
workers: %d
models: %q
cache: {dir: %q}
inference: {prepare: "off"}
admin: "off"
ops: {listen: "off"}
log: {level: error}
http: {worker_header: true}
lab: true
routes:
  /lab/wait-async: {layer: async, sleep: %[6]s}
  /lab/wait-sync: {sleep: %[6]s}
  /lab/wait-compute: {layer: compute, sleep: %[6]s}
  /lab/call-async: {layer: async, block: %[6]s}
  /lab/call-sync: {layer: sync, block: %[6]s}
  /lab/cpu-async: {layer: async, burn: %[6]s}
  /lab/cpu-compute: {layer: compute, burn: %[6]s}
  /lab/work-async: {layer: async, burn: %[7]s}
  /lab/work-compute: {layer: compute, burn: %[7]s}
`, user, "unix:"+filepath.Join(dir, "http"), s.workers, filepath.Join(dir, "models"), filepath.Join(dir, "cache"), each, long)
}

// heavy is the model of the experiments: some tenths of a second on a core of today.
var heavy = heavyModel{Width: 768, Layers: 6}

// start returns when the service is ready.
func (o ours) start(ctx context.Context, dir string, s shape) (*service, error) {
	if err := heavy.write(filepath.Join(dir, "models", "heavy")); err != nil {
		return nil, fmt.Errorf("write a model: %w", err)
	}
	file := filepath.Join(dir, "preforkd.yaml")
	if err := os.WriteFile(file, []byte(o.settings(dir, s)), 0o644); err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(o.path, "serve", "-c", file)
	cmd.Env = environment(o.env, "GOMAXPROCS="+strconv.Itoa(s.cores))
	v, err := launch(cmd, dir, filepath.Join(dir, "http"), write)
	write.Close()
	if err != nil {
		read.Close()
		return nil, err
	}
	ready := make(chan bool, 1)
	go func() { // ends with the service
		lines := bufio.NewReader(read)
		_, err := lines.ReadString('\n') // it is ready
		ready <- err == nil
		_, _ = io.Copy(io.Discard, lines) // who has nobody to write to is killed
		read.Close()
	}()
	select {
	case ok := <-ready:
		if ok {
			return v, nil
		}
		<-v.ended
		return nil, v.failure("preforkd")
	case <-ctx.Done():
		v.stop()
		return nil, context.Cause(ctx)
	}
}

//go:embed app.py
var app []byte

// fastAPI starts the same experiments under uvicorn.
type fastAPI struct {
	python string
	env    []string
}

// findFastAPI returns the first Python that has it, and its version.
func findFastAPI(ctx context.Context, python string, env []string) (f fastAPI, version string, err error) {
	candidates := []string{python}
	if python == "" {
		candidates = []string{"python3", "/usr/bin/python3"}
	}
	for _, path := range candidates {
		cmd := exec.CommandContext(ctx, path, "-c", "import fastapi, uvicorn, sys; print('FastAPI', fastapi.__version__, 'uvicorn', uvicorn.__version__, 'Python', sys.version.split()[0])")
		cmd.Env = env
		if out, err := cmd.Output(); err == nil {
			return fastAPI{path, env}, strings.TrimSpace(string(out)), nil
		}
	}
	return f, "", &ipc.Failure{
		Exit: ipc.ExitUnavailable, What: "--beside fastapi: no fastapi and uvicorn in " + strings.Join(candidates, " or "),
		Try: "pip install fastapi uvicorn, or apt-get install python3-fastapi python3-uvicorn, or --python PATH",
	}
}

// startLimit is how long uvicorn may take until it answers.
const startLimit = time.Minute

func (f fastAPI) start(ctx context.Context, dir string, s shape) (*service, error) {
	if err := os.WriteFile(filepath.Join(dir, "lab.py"), app, 0o644); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "http")
	cmd := exec.Command(f.python, "-m", "uvicorn", "lab:app", "--uds", socket, "--no-access-log", "--log-level", "warning", "--workers", strconv.Itoa(s.workers))
	cmd.Dir = dir
	cmd.Env = environment(f.env, fmt.Sprintf("LAB_SECONDS=%g", each.Seconds()), fmt.Sprintf("LAB_LONG=%g", long.Seconds()), "PYTHONDONTWRITEBYTECODE=1")
	v, err := launch(cmd, dir, socket, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errors.New("uvicorn did not answer within "+startLimit.String()))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if clients, err := connect(ctx, socket, s.workers, s.workers); err == nil {
			hangUp(clients)
			return v, nil
		}
		select {
		case <-v.ended:
			return nil, v.failure("uvicorn")
		case <-ctx.Done():
			v.stop()
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
