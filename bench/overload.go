package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"preforkd/bench/proc"
)

// standing is a server that stands for several measurements.
type standing struct {
	name    string
	dir     string // of its files
	address string
	ops     string // address of preforkd's operations listener; empty: a peer, which has none
	server  *proc.Proc
}

func (s *standing) end() {
	s.server.Stop(goodbye)
	_ = os.RemoveAll(s.dir) // it is in bench/out, which nobody keeps
}

// modelFile is a model that a standing server loads: a folder with a version, and settings in
// place of those that are there.
type modelFile struct {
	name, dir, settings string
}

// stand starts preforkd with two workers, these models and more settings, on free ports.
func (l *lab) stand(ctx context.Context, name, settings string, models ...modelFile) (*standing, error) {
	return l.standOf(ctx, workersEach, name, settings, models...)
}

// standOf is stand with so many workers.
func (l *lab) standOf(ctx context.Context, workers int, name, settings string, models ...modelFile) (*standing, error) {
	s := &standing{name: name}
	ports := [2]int{}
	for i := range ports {
		var err error
		if ports[i], err = proc.FreePort(); err != nil {
			return nil, err
		}
	}
	var err error
	if s.dir, err = os.MkdirTemp(l.dir, "standing-"); err != nil {
		return nil, err
	}
	s.address, s.ops = "127.0.0.1:"+strconv.Itoa(ports[0]), "127.0.0.1:"+strconv.Itoa(ports[1])
	for _, m := range models {
		to := filepath.Join(s.dir, "models", m.name)
		if err := os.CopyFS(to, os.DirFS(m.dir)); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(to, "config.yaml"), []byte(m.settings), 0o644); err != nil {
			return nil, err
		}
	}
	text := fmt.Sprintf(`listen: ["%s"]
workers: %d
models: %s
cache: {dir: %s}
admin: "off"
ops: {listen: "%s"}
%s
`, s.address, workers, filepath.Join(s.dir, "models"), filepath.Join(s.dir, "cache"), s.ops, settings)
	path := filepath.Join(s.dir, "preforkd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return nil, err
	}
	err = l.raise(ctx, s, proc.Spec{
		Name: name, Dir: l.root, Env: l.environment(), Args: []string{l.bin("preforkd"), "serve", "-c", path},
	}, func(ctx context.Context) error { return preforkd.ready(ctx, "http://"+s.address, s.server) })
	return s, err
}

// raise starts the program of s and waits until it is ready.
func (l *lab) raise(ctx context.Context, s *standing, spec proc.Spec, ready func(context.Context) error) (err error) {
	spec.Log = filepath.Join(l.dir, "logs", "overload-"+strings.ReplaceAll(s.name, " ", "-")+".log")
	if s.server, err = proc.Start(spec); err != nil {
		return errors.Join(err, os.RemoveAll(s.dir))
	}
	starting, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	if err = ready(starting); err != nil {
		s.end()
	}
	return err
}

// The peers of the overload scenarios.
const (
	fastPeer  = "FastAPI under gunicorn"
	limitPeer = "uvicorn with a limit"
)

// uvicornLimit is --limit-concurrency of the peer that has one, for each of its workers.
// uvicorn's documentation names no number. Tasks and open connections count, and a client
// that got an answer keeps its connection for 5 s unless it says otherwise.
const uvicornLimit = 100

// standPeer starts a peer with two workers whose answers take so many milliseconds of CPU.
func (l *lab) standPeer(ctx context.Context, name string, spin float64) (*standing, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	s := &standing{name: name, address: "127.0.0.1:" + strconv.Itoa(port)}
	if s.dir, err = os.MkdirTemp(l.dir, "standing-"); err != nil {
		return nil, err
	}
	// As many descriptors as this process may have: the shell's limit is often 1024.
	args := []string{"/bin/sh", "-c", `ulimit -n "$(ulimit -Hn)"; exec "$@"`, "sh", python}
	if name == limitPeer {
		args = append(args, "-m", "uvicorn", "app:app", "--port", strconv.Itoa(port), "--workers", strconv.Itoa(workersEach),
			"--limit-concurrency", strconv.Itoa(uvicornLimit), "--no-access-log", "--log-level", "error")
	} else {
		args = append(args, "/usr/bin/gunicorn", "--workers", strconv.Itoa(workersEach), "--worker-class", "uvicorn.workers.UvicornWorker",
			"--bind", s.address, "app:app")
	}
	err = l.raise(ctx, s, proc.Spec{
		Name: name, Dir: filepath.Join(l.root, "bench", "peers", "overload"), Args: args,
		Env: []string{
			"SPIN_MS=" + strconv.FormatFloat(spin, 'f', 3, 64), "PYTHONDONTWRITEBYTECODE=1", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1",
		},
	}, func(ctx context.Context) error { return everyWorkerAnswers(ctx, s, workersEach) })
	return s, err
}

// peerVersions returns the versions of the peers, or why there are none.
func (l *lab) peerVersions(ctx context.Context) (string, error) {
	text, err := l.output(ctx, python, "-c", `import gunicorn, uvicorn, uvloop, httptools, fastapi, numpy, platform
print(f"FastAPI {fastapi.__version__}, gunicorn {gunicorn.__version__}, uvicorn {uvicorn.__version__} on uvloop, numpy {numpy.__version__}, Python {platform.python_version()}")`)
	if err != nil {
		return "", errors.New("try: apt-get install gunicorn python3-uvicorn python3-uvloop python3-httptools python3-fastapi python3-numpy")
	}
	return strings.TrimSpace(text), nil
}

// fateCounters are preforkd's counters of what became of requests that no model answered.
var fateCounters = []string{"preforkd_requests_refused_total", "preforkd_requests_expired_total", "preforkd_requests_abandoned_total"}

// fates returns preforkd's own counters, by the metric's name and its label; nil of a peer.
func (s *standing) fates() (map[string]float64, error) {
	if s.ops == "" {
		return nil, nil
	}
	text, err := fetch(http.MethodGet, "http://"+s.ops+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	return parseFates(text)
}

// parseFates reads lines such as
//
//	preforkd_requests_refused_total{reason="full"} 12
//
// into counts such as that of "refused full".
func parseFates(text []byte) (map[string]float64, error) {
	all := map[string]float64{}
	for line := range bytes.Lines(text) {
		for _, name := range fateCounters {
			rest, ok := bytes.CutPrefix(line, []byte(name+"{"))
			if !ok {
				continue
			}
			labels, value, ok := strings.Cut(strings.TrimSpace(string(rest)), "} ")
			v, err := strconv.ParseFloat(value, 64)
			if !ok || err != nil {
				return nil, fmt.Errorf("metric %q: %w", line, err)
			}
			_, label, _ := strings.Cut(labels, "=")
			fate := strings.TrimSuffix(strings.TrimPrefix(name, "preforkd_requests_"), "_total")
			all[fate+" "+strings.Trim(label, `"`)] += v
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("none of the metrics %s is in %.200q", strings.Join(fateCounters, ", "), text)
	}
	return all, nil
}

// less returns what was counted between before and after.
func less(after, before map[string]float64) map[string]float64 {
	d := map[string]float64{}
	for name, v := range after {
		d[name] = v - before[name]
	}
	return d
}

// peak is the most that a process tree needed at once.
type peak struct {
	PSS   int64 `json:"pss_bytes"`
	Conns int   `json:"connections"` // that the service's port had
}

// follow looks at s several times a second until ctx ends and then returns what it saw.
func (s *standing) follow(ctx context.Context) <-chan peak {
	found := make(chan peak, 1)
	go func() { // ends with ctx; whoever reads found waits for it
		var p peak
		port, _ := strconv.Atoi(s.address[strings.LastIndexByte(s.address, ':')+1:])
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			sum := int64(0)
			tree, _ := s.server.Tree() // what has ended meanwhile needs nothing
			for _, pid := range tree {
				pss, _ := proc.PSS(pid)
				sum += pss
			}
			p.PSS, p.Conns = max(p.PSS, sum), max(p.Conns, established(port))
			select {
			case <-tick.C:
			case <-ctx.Done():
				tick.Stop()
				found <- p
				return
			}
		}
	}()
	return found
}

// established counts the connections to a port of 127.0.0.1 whose handshake is done.
func established(port int) (n int) {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0
	}
	local := fmt.Sprintf(":%04X", port)
	for line := range bytes.Lines(text) {
		// sl local rem st …, proc_net_tcp in the kernel's documentation
		if f := strings.Fields(string(line)); len(f) > 3 && strings.HasSuffix(f[1], local) && f[3] == "01" {
			n++
		}
	}
	return n
}
