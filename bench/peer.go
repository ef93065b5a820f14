package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"preforkd/bench/proc"
)

// service is a program that can be started on a port.
type service struct {
	name string
	// prepare makes what the service needs and returns its versions. An error leaves
	// the service out.
	prepare func(context.Context, *lab) (version string, err error)
	spec    func(l *lab, port int) proc.Spec
	// ready returns when every worker answers.
	ready func(ctx context.Context, base string, p *proc.Proc) error
}

// peer is one row of the table: requests to one endpoint of a service.
type peer struct {
	name    string
	service *service
	question
}

// The names of the peers, as goals refer to them.
const (
	ours     = "preforkd"
	infer    = "preforkd-infer"
	bare     = "bare"
	fastDef  = "fastapi-def"
	fastAsyn = "fastapi-async"
)

var peers = []peer{
	{ours, &preforkd, predictJSON},
	{bare, &bareHTTP, predictJSON},
	{fastDef, &fastAPI, predictJSON},
	{fastAsyn, &fastAPI, question{"digits", "/predict-async", textType, nil, predictBody, predictAnswer}},
	{infer, &preforkd, inferJSON},
}

var preforkd = service{
	name: "preforkd",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		version, err := l.output(ctx, l.bin("preforkd"), "version")
		return strings.TrimSpace(version) + ", 2 workers", err
	},
	spec: func(l *lab, port int) proc.Spec { return l.preforkd(port, filepath.Join(l.dir, "cache")) },
	ready: func(ctx context.Context, base string, p *proc.Proc) error {
		// The ready line comes when all workers are ready, /readyz answers when one is.
		if _, err := p.FirstLine(ctx); err != nil {
			return err
		}
		return p.AwaitReady(ctx, func() error {
			_, err := fetch(http.MethodGet, base+"/readyz", nil)
			return err
		})
	},
}

// preforkd is our own service with 2 workers and all models in models/.
func (l *lab) preforkd(port int, cache string) proc.Spec {
	return proc.Spec{
		Name: "preforkd", Dir: l.root, Log: filepath.Join(l.dir, "logs", "preforkd.log"),
		Args: []string{
			l.bin("preforkd"), "serve", "--listen", "127.0.0.1:" + strconv.Itoa(port),
			"--workers", "2", "--models", "models",
			"--set", "predict.model=digits", "--set", "cache.dir=" + cache, "--set", "admin=off",
		},
		Env: l.environment(),
	}
}

// environment is what preforkd is started with. Root's service has to say that its workers
// are root's, too, as those of the peers are.
func (l *lab) environment() []string {
	env := []string{"ONNXRUNTIME=" + l.library}
	if os.Getuid() == 0 {
		env = append(env, "PREFORKD_USER=root")
	}
	return env
}

var bareHTTP = service{
	name: "bare fasthttp",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		version, err := l.output(ctx, "go", "list", "-m", "-f", "{{.Version}}", "github.com/valyala/fasthttp")
		if err != nil {
			return "", err
		}
		return "fasthttp " + strings.TrimSpace(version) + ", GOMAXPROCS=2", l.buildPeer(ctx, "bare")
	},
	spec: func(l *lab, port int) proc.Spec {
		return proc.Spec{
			Name: "bare fasthttp", Dir: l.root, Log: filepath.Join(l.dir, "logs", "bare.log"), Env: []string{"GOMAXPROCS=2"},
			Args: []string{l.bin("bare"), "-listen", "127.0.0.1:" + strconv.Itoa(port), "-library", l.library},
		}
	},
	ready: func(ctx context.Context, base string, p *proc.Proc) error {
		d := digit{pixels: "[0" + strings.Repeat(",0", 63) + "]"}
		return p.AwaitReady(ctx, func() error {
			_, err := fetch(http.MethodPost, base+"/predict", predictBody(&d))
			return err
		})
	},
}

// python is Debian's, whatever $PATH has before it: the packages are Debian's too.
const python = "/usr/bin/python3"

var fastAPI = service{
	name: "FastAPI under gunicorn",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		if err := l.command(ctx, python, "-c", "import gunicorn, uvicorn, uvloop, httptools, fastapi, numpy, onnx"); err != nil {
			return "", fmt.Errorf("apt-get install gunicorn python3-uvicorn python3-uvloop python3-httptools python3-fastapi python3-numpy python3-onnx: %w", err)
		}
		if err := l.command(ctx, python, "bench/peers/fastapi/weights.py", "models/digits/1/model.onnx", l.weights()); err != nil {
			return "", err
		}
		const script = "import gunicorn, uvicorn, fastapi, numpy, platform, importlib.metadata as m\n" +
			"print(f'FastAPI {fastapi.__version__}, gunicorn {gunicorn.__version__} with 2 uvicorn {uvicorn.__version__} workers, " +
			"uvloop {m.version(\"uvloop\")}, httptools {m.version(\"httptools\")}, numpy {numpy.__version__}, Python {platform.python_version()}')"
		version, err := l.output(ctx, python, "-c", script)
		return strings.TrimSpace(version), err
	},
	spec: func(l *lab, port int) proc.Spec {
		return proc.Spec{
			Name: "FastAPI", Dir: filepath.Join(l.root, "bench", "peers", "fastapi"), Log: filepath.Join(l.dir, "logs", "fastapi.log"),
			Args: []string{
				python, "/usr/bin/gunicorn", "--workers", "2", "--worker-class", "uvicorn.workers.UvicornWorker",
				"--bind", "127.0.0.1:" + strconv.Itoa(port), "app:app",
			},
			// One thread for each of two workers on two cores is what serves most.
			Env: []string{"DIGITS_WEIGHTS=" + l.weights(), "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1"},
		}
	},
	ready: fastReady,
}

// weights is where weights.py writes.
func (l *lab) weights() string { return filepath.Join(l.dir, "digits.npz") }

// fastReady asks until both workers have answered, and makes sure that they run as
// fast as Debian's packages let them.
func fastReady(ctx context.Context, base string, p *proc.Proc) error {
	pids := map[int]bool{}
	return p.AwaitReady(ctx, func() error {
		text, err := fetch(http.MethodGet, base+"/worker", nil)
		if err != nil {
			return err
		}
		var v struct {
			PID        int
			Loop, HTTP string
		}
		if err := json.Unmarshal(text, &v); err != nil {
			return err
		}
		if v.Loop != "uvloop" || v.HTTP != "httptools_impl" {
			return fmt.Errorf("uvicorn runs on %s with %s, not on uvloop with httptools", v.Loop, v.HTTP)
		}
		if pids[v.PID] = true; len(pids) < 2 {
			return fmt.Errorf("of 2 workers %d answers", len(pids))
		}
		return nil
	})
}

// chosenPeers returns those of all that --peers names and that are installed, and of the
// others why they are left out.
func (l *lab) chosenPeers(ctx context.Context, all []peer) (chosen []peer, versions map[string]string, left []string) {
	versions = map[string]string{}
	wrong := map[*service]error{}
	for _, p := range all {
		if l.peers != "" && !strings.Contains(","+l.peers+",", ","+p.name+",") {
			continue
		}
		if _, done := versions[p.service.name]; !done && wrong[p.service] == nil {
			version, err := p.service.prepare(ctx, l)
			if wrong[p.service] = err; err == nil {
				versions[p.service.name] = version
			}
		}
		if err := wrong[p.service]; err != nil {
			left = append(left, fmt.Sprintf("%s is left out: %v", p.name, err))
			continue
		}
		chosen = append(chosen, p)
	}
	return chosen, versions, left
}
