package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

// weightHeavy is a model whose weights are most of what a service of it takes: 504 MB.
var weightHeavy = perceptron{Width: 2048, Layers: 30, Positions: 1}

const (
	memoryMost  = 8 // workers
	memorySurge = 1 // of a reload of preforkd, so that how many workers there are at most is known
	memoryBoot  = 5 * time.Minute
	settling    = time.Second // after a load, before memory is read: what was freed is given back by then
	mega        = 1e6
)

// The names of what holds a model, as tables and goals have them.
const (
	heldPrepared = "preforkd"
	heldPlain    = "preforkd, inference.prepare off"
	heldPreload  = "gunicorn --preload"
	heldGunicorn = "gunicorn"
	heldFloor    = "one Go process"
)

// holder is a way to serve the model.
type holder struct {
	name string
	spec func(*held) proc.Spec
	// loaded returns nil when all workers have the model.
	loaded func(context.Context, *held) error
	// reload has the service take the weights that are deployed; nil: there is no reload.
	reload func(context.Context, *held) error
	// prepare says which versions these are, or why it is left out.
	prepare func(context.Context, *lab) (string, error)
}

// ours tells whether h is preforkd.
func (h *holder) ours() bool { return h.name == heldPrepared || h.name == heldPlain }

var holders = []*holder{ourHolder(heldPrepared, "auto"), ourHolder(heldPlain, "off"), gunicornHolder(heldPreload, "--preload"), gunicornHolder(heldGunicorn), &floorHolder}

// held is a service of the model that runs.
type held struct {
	l      *lab
	h      *holder
	files  *weightFiles
	n      int // workers
	dir    string
	cache  string // preforkd's
	port   int
	server *proc.Proc
	loads  int // of gunicorn's workers, before those that are awaited
}

func (s *held) path(name string) string { return filepath.Join(s.dir, name) }
func (s *held) model() string           { return s.path("models/" + weightModel + "/1/model.onnx") }
func (s *held) address() string         { return "127.0.0.1:" + strconv.Itoa(s.port) }

// weightFiles are two models of the same size, and the answer of each to one request.
type weightFiles struct {
	dir     string
	bytes   float64 // of the weights of one
	files   [2]string
	answers [2][]byte
	request []byte
	q       question
}

// The weights that a service is started with, and those that it is reloaded into.
const (
	oldWeights = iota
	newWeights
)

var weightsNamed = [...]string{"old", "new"}

// weightFiles writes both models into bench/out and asks the floor for their answers. Whoever
// gets them removes them.
func (l *lab) weightFiles(ctx context.Context) (*weightFiles, error) {
	dir, err := os.MkdirTemp(l.dir, "weights-")
	if err != nil {
		return nil, err
	}
	w := &weightFiles{dir: dir, q: binaryQuestion(weightModel)}
	if err := w.make(ctx, l); err != nil {
		w.remove()
		return nil, err
	}
	return w, nil
}

func (w *weightFiles) remove() { _ = os.RemoveAll(w.dir) } // it is in bench/out, which nobody keeps

func (w *weightFiles) make(ctx context.Context, l *lab) error {
	p := of(&l.options, weightHeavy, perceptron{Width: 1024, Layers: 16, Positions: 1})
	w.bytes, w.request = float64(p.bytes()), w.q.request(&l.samples[0])
	l.say("writing two models of %.0f MB", w.bytes/mega)
	for i := range w.files {
		p.Seed = uint64(i)
		to := filepath.Join(w.dir, weightsNamed[i])
		if err := p.write(to, ""); err != nil {
			return err
		}
		w.files[i] = filepath.Join(to, "1", "model.onnx")
	}
	debug.FreeOSMemory() // it took several times their size
	if err := l.buildPeer(ctx, "bare"); err != nil {
		return err
	}
	for i := range w.files {
		s, err := l.hold(ctx, &floorHolder, 1, "", w, i)
		if err != nil {
			return err
		}
		answer, err := w.q.ask("http://"+s.address(), &l.samples[0])
		s.end()
		if err != nil {
			return err
		}
		w.answers[i] = numbersOf(answer)
	}
	if sameNumbers(w.answers[oldWeights], w.answers[newWeights]) == nil {
		return errors.New("two models have the same answer: which of them has given it could not be told")
	}
	return nil
}

// numbersOf returns the outputs of an answer in binary form, which are its end.
func numbersOf(answer []byte) []byte { return answer[max(len(answer)-4*mlpOutputs, 0):] }

// whose tells by which weights an answer was made, or why by none.
func (w *weightFiles) whose(answer []byte) (int, error) {
	var wrong [2]error
	for i, want := range w.answers {
		if wrong[i] = sameNumbers(numbersOf(answer), want); wrong[i] == nil {
			return i, nil
		}
	}
	return 0, fmt.Errorf("neither the answer of the old weights nor of the new: %w", wrong[0])
}

// chosenHolders returns those of --peers that are installed and satisfy ok, and notes about all.
func (l *lab) chosenHolders(ctx context.Context, ok func(*holder) bool) (chosen []*holder, notes []string) {
	for _, h := range holders {
		if !ok(h) || l.peers != "" && !strings.Contains(","+l.peers+",", ","+h.name+",") {
			continue
		}
		text, err := h.prepare(ctx, l)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s is left out: %v", h.name, err))
			l.say("%s", notes[len(notes)-1])
			continue
		}
		chosen = append(chosen, h)
		notes = append(notes, h.name+": "+text)
	}
	return chosen, notes
}

// hold starts h with so many workers and weights and waits until all have loaded them.
func (l *lab) hold(ctx context.Context, h *holder, workers int, cache string, w *weightFiles, weights int) (*held, error) {
	s := &held{l: l, h: h, files: w, n: workers, cache: cache}
	var err error
	if s.port, err = proc.FreePort(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp(l.dir, "held-"); err != nil {
		return nil, err
	}
	if err = s.deploy(weights); err == nil {
		s.server, err = proc.Start(h.spec(s))
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	starting, cancel := context.WithTimeout(ctx, memoryBoot)
	defer cancel()
	if err := h.loaded(starting, s); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

func (s *held) end() {
	s.server.Stop(goodbye)
	_ = os.RemoveAll(s.dir) // it is in bench/out, which nobody keeps
}

// log is where its output goes: beside the folder, which is removed.
func (s *held) log() string {
	return filepath.Join(s.l.dir, "logs", "memory-"+strings.NewReplacer(" ", "-", ",", "", ".", "-").Replace(s.h.name)+".log")
}

// deploy puts a model where the service takes it from.
func (s *held) deploy(weights int) error {
	to := s.model()
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Link(s.files.files[weights], to+".new"), os.Rename(to+".new", to))
}

// ask asks over a connection of its own and returns which worker has answered by which weights.
func (s *held) ask(ctx context.Context) (worker string, weights int, err error) {
	q := &s.files.q
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address()+q.path, bytes.NewReader(q.body(&s.l.samples[0])))
	if err != nil {
		return "", 0, err
	}
	req.Close = true
	req.Header.Set("Content-Type", q.kind)
	for _, line := range q.headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		return "", 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("%s: %.300s", resp.Status, answer.Bytes())
	}
	weights, err = s.files.whose(answer.Bytes())
	return resp.Header.Get("X-Preforkd-Worker"), weights, err
}

// touch asks until every worker has answered, so that each has read all its weights, and
// returns by which they have.
func (s *held) touch(ctx context.Context) (weights int, err error) {
	const most = 100 // rounds, until there is something wrong
	seen, found := map[string]bool{}, map[int]bool{}
	for range most {
		var all sync.WaitGroup
		var mu sync.Mutex // guards seen, found and err
		for range s.n {
			all.Go(func() {
				worker, one, wrong := s.ask(ctx)
				mu.Lock()
				defer mu.Unlock()
				if err = errors.Join(err, wrong); wrong == nil {
					seen[worker], found[one], weights = true, true, one
				}
			})
		}
		all.Wait()
		switch {
		case err != nil:
			return 0, fmt.Errorf("%s: %w", s.h.name, err)
		case len(found) > 1:
			return 0, fmt.Errorf("%s: some workers have the old weights, some the new", s.h.name)
		case len(seen) >= s.n:
			return weights, nil
		}
	}
	return 0, fmt.Errorf("%s: of %d workers %d answer", s.h.name, s.n, len(seen))
}

// load has one client after the other answered for so long.
func (s *held) load(ctx context.Context, warmup, duration time.Duration) (*load.Report, error) {
	r, err := load.Run(ctx, s.options(warmup, duration))
	if err != nil {
		return nil, err
	}
	if r.Failures.Total() > 0 || r.Answers == 0 {
		return nil, fmt.Errorf("%s: requests failed:\n%v", s.h.name, r)
	}
	return r, ctx.Err()
}

// options are one client that accepts the answers of either weights.
func (s *held) options(warmup, duration time.Duration) load.Options {
	return load.Options{
		Addr: s.address(), Conns: 1, Keepalive: true, Warmup: warmup, Duration: duration, Request: s.files.request, Timeout: memoryBoot,
		Check: func(_ int, body []byte) error {
			_, err := s.files.whose(body)
			return err
		},
	}
}

// memoryUse is the PSS of a service's processes, in bytes.
type memoryUse struct {
	Workers int64 `json:"workers"`
	Helper  int64 `json:"helper"` // of preforkd, while it prepares a model
	Others  int64 `json:"others"` // main process, supervisor, arbiter
	Most    int64 `json:"helper_hwm"`
}

func (u memoryUse) total() float64 { return float64(u.Workers + u.Helper + u.Others) }

// use adds up the tree as it is. What has ended meanwhile needs nothing.
func (s *held) use() (u memoryUse, err error) {
	tree, err := s.server.Tree()
	for _, pid := range tree {
		pss, err := proc.PSS(pid)
		if err != nil {
			continue
		}
		command, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		words := bytes.Split(command, []byte{0})
		switch {
		case s.h.ours() && bytes.HasSuffix(words[0], []byte("preforkd-worker")) && len(words) > 1 && string(words[1]) == "prepare":
			u.Helper += pss
			if most, err := proc.HighWater(pid); err == nil {
				u.Most = max(u.Most, most)
			}
		case s.h.ours() && bytes.HasSuffix(words[0], []byte("preforkd-worker")), !s.h.ours() && (pid != s.server.PID() || len(tree) == 1):
			u.Workers += pss
		default:
			u.Others += pss
		}
	}
	return u, err
}

// settled is use a moment after the last request.
func (s *held) settled(ctx context.Context) (memoryUse, error) {
	if err := rest(ctx, settling); err != nil {
		return memoryUse{}, err
	}
	return s.use()
}

// ourHolder is preforkd.
func ourHolder(name, prepare string) *holder {
	return &holder{
		name: name,
		prepare: func(ctx context.Context, l *lab) (string, error) {
			version, err := preforkd.prepare(ctx, l)
			version, _, _ = strings.Cut(version, ",")
			return version + ", inference.prepare: " + prepare, err
		},
		spec: func(s *held) proc.Spec {
			return proc.Spec{
				Name: name, Dir: s.l.root, Log: s.log(), Env: s.l.environment(),
				Args: []string{
					s.l.bin("preforkd"), "serve", "--listen", s.address(), "--workers", strconv.Itoa(s.n), "--models", s.path("models"),
					"--set", "inference.prepare=" + prepare, "--set", "cache.dir=" + s.cache, "--set", "admin=" + s.path("admin.sock"),
					"--set", "http.worker_header=true", "--set", "timeouts.boot=" + memoryBoot.String(),
					"--set", "reload.bake=200ms", "--set", "reload.trial=200ms", "--set", fmt.Sprint("reload.max_surge=", memorySurge),
				},
			}
		},
		loaded: func(ctx context.Context, s *held) error {
			_, err := s.server.FirstLine(ctx) // when all workers are ready
			return err
		},
		reload: func(ctx context.Context, s *held) error {
			return s.l.command(ctx, s.l.bin("preforkd"), "reload", "--admin", s.path("admin.sock"))
		},
	}
}

// gunicornHolder is a numpy model of the same weights, with the arbiter's own kind of workers,
// which serve one request at a time.
func gunicornHolder(name string, flags ...string) *holder {
	return &holder{
		name: name,
		prepare: func(ctx context.Context, l *lab) (string, error) {
			text, err := l.output(ctx, python, "-c", `import gunicorn, numpy, platform
print("gunicorn", gunicorn.__version__, "with sync workers, numpy", numpy.__version__, "with one thread of BLAS, Python", platform.python_version())`)
			if err != nil {
				return "", errors.New("try: apt-get install gunicorn python3-numpy")
			}
			return strings.Join(append([]string{strings.TrimSpace(text)}, flags...), "; "), nil
		},
		spec: func(s *held) proc.Spec {
			dir := filepath.Join(s.l.root, "bench", "peers", "memory")
			args := []string{
				python, "-m", "gunicorn", "--config", filepath.Join(dir, "gunicorn.conf.py"), "--workers", strconv.Itoa(s.n),
				"--bind", s.address(), "--timeout", fmt.Sprint(memoryBoot.Seconds()),
			}
			return proc.Spec{
				Name: name, Dir: dir, Log: s.log(), Args: append(append(args, flags...), "app:application"),
				Env: []string{"MODEL=" + s.model(), "READY=" + s.path("ready"), "PYTHONDONTWRITEBYTECODE=1", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1"},
			}
		},
		loaded: func(ctx context.Context, s *held) error { return s.awaitLoads(ctx, nil) },
		reload: func(ctx context.Context, s *held) error {
			old, err := s.server.Tree()
			if err != nil {
				return err
			}
			if err := syscall.Kill(s.server.PID(), syscall.SIGHUP); err != nil {
				return err
			}
			return s.awaitLoads(ctx, old[1:])
		},
	}
}

// awaitLoads waits until as many workers as there shall be have loaded the application since
// the last call, and none of old is left.
func (s *held) awaitLoads(ctx context.Context, old []int) error {
	return s.server.AwaitReady(ctx, func() error {
		text, err := os.ReadFile(s.path("ready"))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		n := bytes.Count(text, []byte("\n")) - s.loads
		if n < s.n {
			return fmt.Errorf("of %d workers %d have loaded the model", s.n, n)
		}
		if len(old) > 0 {
			now, err := s.server.Tree()
			if err != nil {
				return err
			}
			if len(now) != s.n+1 || slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) }) {
				return fmt.Errorf("processes are %v, old workers were %v", now, old)
			}
		}
		s.loads += n
		return nil
	})
}

// floorHolder is one process with one copy of the weights.
var floorHolder = holder{
	name: heldFloor,
	prepare: func(ctx context.Context, l *lab) (string, error) {
		text, err := bareHTTP.prepare(ctx, l)
		version, _, _ := strings.Cut(text, ",")
		return version + ", one session of the model", err
	},
	spec: func(s *held) proc.Spec {
		return proc.Spec{
			Name: heldFloor, Dir: s.l.root, Log: s.log(),
			Args: []string{
				s.l.bin("bare"), "-listen", s.address(), "-library", s.l.library, "-model", s.model(), "-name", weightModel, "-sessions", "1",
			},
		}
	},
	loaded: func(ctx context.Context, s *held) error {
		return s.server.AwaitReady(ctx, func() error {
			_, err := s.files.q.ask("http://"+s.address(), &s.l.samples[0])
			return err
		})
	},
}
