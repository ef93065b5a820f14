package main

import (
	"bytes"
	"context"
	"encoding/json"
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
)

// contenders are all whose reloads are compared.
var contenders = []*contender{&ourselves, &gunicorn, &uwsgi, &pm2, &nginx}

// applications are what versions an application of bench/peers/reload can be.
var applications = []version{slow, failing, hanging, crashing}

var root = load.Get("/")

// deployWord writes the file that the applications read at boot.
func deployWord(s *stage, v version) error {
	return os.WriteFile(s.path("version"), []byte(v), 0o644)
}

func (s *stage) peers() string { return filepath.Join(s.l.root, "bench", "peers", "reload") }

// hup is the trigger of those that reload at a signal to their first process.
func hup(_ context.Context, s *stage) (string, int, error) {
	return "", -1, syscall.Kill(s.server.PID(), syscall.SIGHUP)
}

var gunicorn = contender{
	name: "gunicorn",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		text, err := l.output(ctx, python, "-c", `import gunicorn, uvicorn, fastapi, uvloop, httptools
print("gunicorn", gunicorn.__version__, "with uvicorn", uvicorn.__version__, "on uvloop, FastAPI", fastapi.__version__)`)
		if err != nil {
			return "", errors.New("try: apt-get install gunicorn python3-uvicorn python3-fastapi python3-uvloop python3-httptools")
		}
		return strings.TrimSpace(text) + "; HUP", nil
	},
	deploy: deployWord,
	spec: func(s *stage) proc.Spec {
		return proc.Spec{
			Name: "gunicorn", Dir: s.peers(), Log: s.log(), Env: []string{"VERSION_FILE=" + s.path("version"), "PYTHONDONTWRITEBYTECODE=1"},
			Args: []string{
				python, "-m", "gunicorn", "--worker-class", "uvicorn.workers.UvicornWorker", "--workers", strconv.Itoa(workersEach),
				"--bind", s.address(), "--backlog", "4096", "--keep-alive", "75", "asgi:app",
			},
		}
	},
	trigger: hup, worker: func(string) bool { return true }, request: root, versions: applications,
}

var uwsgi = contender{
	name: "uWSGI",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		text, err := l.output(ctx, "uwsgi", "--version")
		if err == nil {
			_, err = l.output(ctx, "uwsgi", "--plugins", "http,python3", "--version")
		}
		if err != nil {
			return "", errors.New("try: apt-get install uwsgi uwsgi-plugin-python3")
		}
		return "uWSGI " + strings.TrimSpace(text) + " behind its own HTTP router, lazy-apps, need-app; touch-chain-reload", nil
	},
	deploy: deployWord,
	spec: func(s *stage) proc.Spec {
		return proc.Spec{
			Name: "uWSGI", Dir: s.peers(), Log: s.log(), Env: []string{"VERSION_FILE=" + s.path("version"), "PYTHONDONTWRITEBYTECODE=1"},
			Args: []string{
				"uwsgi", "--plugins", "http,python3", "--master", "--die-on-term", "--need-app", "--lazy-apps", "--processes", strconv.Itoa(workersEach),
				"--http", s.address(), "--http-keepalive", "--listen", "1024", "--wsgi-file", "wsgi.py", "--touch-chain-reload", s.path("chain"),
				"--disable-logging", "--auto-procname",
			},
		}
	},
	trigger: func(_ context.Context, s *stage) (string, int, error) {
		// Its master compares times of modification in whole seconds; renamed, because one
		// that saw both the file's and the later one would reload twice.
		stamp := time.Now().Add(time.Second)
		return "", -1, errors.Join(os.WriteFile(s.path("chain.new"), nil, 0o644), os.Chtimes(s.path("chain.new"), stamp, stamp),
			os.Rename(s.path("chain.new"), s.path("chain")))
	},
	pause:  3 * time.Second,
	worker: func(cmdline string) bool { return strings.Contains(cmdline, "uWSGI worker") }, request: root, versions: applications,
}

// pm2Program is where npm puts it: below .cache, which git ignores.
func (l *lab) pm2Program(name string) string {
	return filepath.Join(l.root, ".cache", "pm2", "node_modules", ".bin", name)
}

func pm2Home(s *stage) string { return "PM2_HOME=" + s.path("pm2") }

var pm2 = contender{
	name: "pm2",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		node, err := l.output(ctx, "node", "--version")
		text, err2 := os.ReadFile(filepath.Join(l.root, ".cache", "pm2", "node_modules", "pm2", "package.json"))
		var about struct{ Version string }
		if err := errors.Join(err, err2); err != nil {
			return "", errors.New("try: apt-get install nodejs npm; npm install --prefix .cache/pm2 pm2")
		}
		if err := json.Unmarshal(text, &about); err != nil {
			return "", err
		}
		return fmt.Sprintf("pm2 %s in cluster mode, wait_ready, on node %s; pm2 reload", about.Version, strings.TrimSpace(node)), nil
	},
	deploy: deployPM2,
	spec: func(s *stage) proc.Spec {
		return proc.Spec{
			// pm2-runtime is pm2 in the foreground.
			Name: "pm2", Dir: s.dir, Log: s.log(), Env: []string{pm2Home(s)},
			Args: []string{s.l.pm2Program("pm2-runtime"), "start", s.path("ecosystem.json")},
		}
	},
	trigger: func(ctx context.Context, s *stage) (string, int, error) {
		cmd := exec.CommandContext(ctx, s.l.pm2Program("pm2"), "reload", "app")
		cmd.Env = append(os.Environ(), pm2Home(s), "NO_COLOR=1")
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || ctx.Err() != nil {
			return "", 0, err
		}
		return lastLine(out), cmd.ProcessState.ExitCode(), nil
	},
	worker: func(cmdline string) bool { return strings.Contains(cmdline, "app.js") }, request: root, versions: applications,
}

func deployPM2(s *stage, v version) error {
	type app struct {
		Name      string            `json:"name"`
		Script    string            `json:"script"`
		Mode      string            `json:"exec_mode"`
		Instances int               `json:"instances"`
		WaitReady bool              `json:"wait_ready"`
		Listen    int64             `json:"listen_timeout"` // ms until it is taken for ready
		Kill      int               `json:"kill_timeout"`
		Env       map[string]string `json:"env"`
	}
	text, err := json.Marshal(map[string][]app{"apps": {{
		Name: "app", Script: filepath.Join(s.peers(), "app.js"), Mode: "cluster", Instances: workersEach,
		// Its default of 3 s would end the old workers before a slow version is ready.
		WaitReady: true, Listen: 15000, Kill: 5000,
		Env: map[string]string{"PORT": strconv.Itoa(s.port), "VERSION_FILE": s.path("version")},
	}}})
	return errors.Join(err, os.WriteFile(s.path("ecosystem.json"), text, 0o644), deployWord(s, v))
}

// nginx has no application that could boot slowly or crash: a version that fails is a
// configuration with an error.
var nginx = contender{
	name: "nginx",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		text, err := exec.CommandContext(ctx, nginxProgram, "-v").CombinedOutput()
		if err != nil {
			return "", errors.New("try: apt-get install nginx-light")
		}
		_, version, _ := strings.Cut(strings.TrimSpace(string(text)), "version: nginx/")
		return "nginx " + version + " with a static answer; nginx -s reload, which sends HUP", nil
	},
	deploy: func(s *stage, v version) error {
		text, err := os.ReadFile(filepath.Join(s.peers(), "nginx.conf"))
		text = bytes.ReplaceAll(text, []byte("BENCH_PORT"), []byte(strconv.Itoa(s.port)))
		text = bytes.ReplaceAll(text, []byte("BENCH_DIR"), []byte(s.dir))
		if v == failing {
			text = append(text, "no_such_directive on;\n"...)
		}
		return errors.Join(err, os.WriteFile(s.path("nginx.conf"), text, 0o644))
	},
	spec: func(s *stage) proc.Spec {
		return proc.Spec{Name: "nginx", Dir: s.dir, Log: s.log(), Args: []string{nginxProgram, "-c", s.path("nginx.conf"), "-p", s.dir}}
	},
	trigger: func(ctx context.Context, s *stage) (string, int, error) {
		cmd := exec.CommandContext(ctx, nginxProgram, "-c", s.path("nginx.conf"), "-p", s.dir, "-s", "reload")
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			return "", 0, err
		}
		return lastLine(out), cmd.ProcessState.ExitCode(), nil
	},
	worker: func(cmdline string) bool { return strings.Contains(cmdline, "nginx: worker process") }, request: root, versions: []version{failing},
}

const nginxProgram = "/usr/sbin/nginx" // not in everybody's $PATH

// lastLine returns the last line of text that is not empty.
func lastLine(text []byte) (last string) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			last = line
		}
	}
	return last
}
