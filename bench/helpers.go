package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

// helperConns is how many clients ask for pictures to be classified: both services have all that
// they can do.
const helperConns = 16

// helperSettings are those of preforkd: as many Python processes as the peer has, which decode and
// format, around the model.
const helperSettings = `routes:
  /classify-image: {steps: [helper:images/decode, model:digits-cnn, helper:images/format]}
pools:
  images:
    workers: %d
    worker: {kind: helper, command: [%s, %s]}
`

// imageProcesses are how many Python processes each service has: one for each core, and one less,
// which leaves one to preforkd's workers, and idle at the peer.
var imageProcesses = []int{workersEach, workersEach - 1}

// imageRun is one load of one service.
type imageRun struct {
	Name      string `json:"name"`
	Processes int    `json:"processes"`
	Round     int    `json:"round"`
	Visit     *visit `json:"visit"`
}

// imageRuns is the raw data of helpers-image.
type imageRuns struct {
	Rounds int         `json:"rounds"`
	Bytes  int         `json:"picture_bytes"`
	Runs   []*imageRun `json:"runs"`
}

// helpersImage compares a picture's way through helpers and a model with the same work in FastAPI.
func helpersImage(ctx context.Context, l *lab) (*result, error) {
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	peers, err := l.imagePeer(ctx)
	if err != nil {
		return nil, err
	}
	pictures, err := l.pictures()
	if err != nil {
		return nil, err
	}
	raw := &imageRuns{Rounds: l.times(5), Bytes: len(pictures[0].body)}
	names := []string{ours, fastPeer}
	for round := range raw.Rounds {
		for i := range 2 * len(imageProcesses) {
			name, n := names[(i+round)%2], imageProcesses[i/2]
			v, err := l.imageVisit(ctx, name, n, pictures)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			l.say("round %d of %d: %-24s %d Python processes: %6.0f requests/s, p50 %v, p99 %v, %.0f µs CPU a request, others %.0f %%", round+1, raw.Rounds, name, n,
				v.Report.Throughput(), v.Report.Latency.P50.Round(10*time.Microsecond), v.Report.Latency.P99.Round(10*time.Microsecond), micros(v.Server), others(v))
			raw.Runs = append(raw.Runs, &imageRun{name, n, round, v})
		}
	}
	var goals []goal
	for _, n := range imageProcesses {
		goals = append(goals,
			goal{Text: fmt.Sprintf("throughput, × FastAPI, %d Python processes", n), Limit: 1.5, Unit: " ×", Values: ratios(raw.column(ours, n, throughput), raw.column(fastPeer, n, throughput))}.judge(),
			goal{Text: fmt.Sprintf("p99, × FastAPI, %d Python processes", n), Limit: 1, AtMost: true, Unit: " ×", Values: ratios(raw.column(ours, n, p99), raw.column(fastPeer, n, p99))}.judge())
	}
	return &result{
		Title:  fmt.Sprintf("From a picture to a digit: helpers around a model, and the same work in one Python process; %d clients", helperConns),
		Tables: []table{raw.table(names)},
		Goals:  goals,
		Notes: []string{
			"preforkd: " + version, "peer: " + peers + "; the model is a forward pass in numpy",
			fmt.Sprintf("PNG of %d bytes, 64 x 64 pixels", raw.Bytes),
		},
		Raw: raw,
	}, nil
}

func p99(v *visit) float64 { return float64(v.Report.Latency.P99) }

func (r *imageRuns) column(name string, processes int, number func(*visit) float64) (values []float64) {
	for _, run := range r.Runs {
		if run.Name == name && run.Processes == processes {
			values = append(values, number(run.Visit))
		}
	}
	return values
}

func (r *imageRuns) table(names []string) table {
	t := table{head: []string{"service", "Python processes", "requests/s", "p50 ms", "p99 ms", "CPU µs", "min–max requests/s"}}
	for _, n := range imageProcesses {
		for _, name := range names {
			millis := func(q func(load.Summary) time.Duration) string {
				return digits(median(r.column(name, n, func(v *visit) float64 { return micros(q(v.Report.Latency)) / 1000 })))
			}
			rate := r.column(name, n, throughput)
			t.add(name, strconv.Itoa(n), digits(median(rate)), millis(p50Of), millis(p99Of), digits(median(r.column(name, n, serverCPU))), spread(rate))
		}
	}
	return t
}

// photo is a digit as a PNG, and what the model says of it.
type photo struct {
	body  []byte
	digit string
}

// pictures makes them of the held-out samples.
func (l *lab) pictures() (all []photo, err error) {
	answers, err := readLines(filepath.Join(l.root, "testdata", "digits", "digits-cnn.csv"))
	if err != nil {
		return nil, err
	}
	for i := range min(checks, len(l.samples)) {
		im, b := image.NewGray(image.Rect(0, 0, 64, 64)), bytes.Buffer{}
		for k, text := range strings.Split(strings.Trim(l.samples[i].pixels, "[]"), ",") {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, err
			}
			for y := range 8 {
				for x := range 8 {
					im.SetGray(k%8*8+x, k/8*8+y, color.Gray{Y: uint8(v * 255 / 16)})
				}
			}
		}
		if err := png.Encode(&b, im); err != nil {
			return nil, err
		}
		digit, _, _ := strings.Cut(answers[i], ",")
		all = append(all, photo{b.Bytes(), digit})
	}
	return all, nil
}

// imagePeer returns the versions of what the peer needs, whose weights it writes.
func (l *lab) imagePeer(ctx context.Context) (string, error) {
	text, err := l.peerVersions(ctx)
	if err != nil {
		return "", err
	}
	pillow, err := l.output(ctx, python, "-c", `import PIL; print("Pillow", PIL.__version__)`)
	if err != nil {
		return "", errors.New("try: apt-get install python3-pil")
	}
	return text + ", " + strings.TrimSpace(pillow), l.command(ctx, python, filepath.Join(l.root, "bench", "peers", "helpers", "weights.py"),
		filepath.Join(l.root, "models", "digits-cnn", "1", "model.onnx"), l.cnnWeights())
}

func (l *lab) cnnWeights() string { return filepath.Join(l.dir, "digits-cnn.npz") }

// imageVisit starts a service, checks its answers and loads it.
func (l *lab) imageVisit(ctx context.Context, name string, processes int, pictures []photo) (*visit, error) {
	s, err := l.imageService(ctx, name, processes)
	if err != nil {
		return nil, err
	}
	defer s.end()
	for i, p := range pictures {
		text, err := fetch(http.MethodPost, "http://"+s.address+"/classify-image", p.body)
		if err != nil {
			return nil, err
		}
		if !strings.Contains(strings.ReplaceAll(string(text), " ", ""), `{"digit":`+p.digit+`,`) {
			return nil, fmt.Errorf("picture %d is a %s to the model, and the answer %s", i, p.digit, text)
		}
	}
	return l.loaded(ctx, s, load.Options{
		Addr: s.address, Conns: helperConns, Keepalive: true, Request: load.Post("/classify-image", "image/png", pictures[0].body),
		Warmup: l.warmup, Duration: l.duration,
	})
}

// imageService starts preforkd or the peer.
func (l *lab) imageService(ctx context.Context, name string, processes int) (*standing, error) {
	if name == ours {
		settings := fmt.Sprintf(helperSettings, processes, python, filepath.Join(l.root, "helpers", "python", "digit.py"))
		return l.stand(ctx, "helpers", settings, modelFile{"digits-cnn", filepath.Join(l.root, "models", "digits-cnn"), ""})
	}
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	s := &standing{name: name, address: "127.0.0.1:" + strconv.Itoa(port)}
	if s.dir, err = os.MkdirTemp(l.dir, "standing-"); err != nil {
		return nil, err
	}
	return s, l.raise(ctx, s, proc.Spec{
		Name: name, Dir: filepath.Join(l.root, "bench", "peers", "helpers"),
		Args: []string{
			python, "/usr/bin/gunicorn", "--workers", strconv.Itoa(processes), "--worker-class", "uvicorn.workers.UvicornWorker",
			"--bind", s.address, "--keep-alive", "75", "app:app",
		},
		Env: []string{"CNN_WEIGHTS=" + l.cnnWeights(), "PYTHONDONTWRITEBYTECODE=1", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1"},
	}, func(ctx context.Context) error { return everyWorkerAnswers(ctx, s, processes) })
}

// everyWorkerAnswers waits until each worker of a peer, so many, has said its process number.
func everyWorkerAnswers(ctx context.Context, s *standing, n int) error {
	pids := map[int]bool{}
	return s.server.AwaitReady(ctx, func() error {
		text, err := fetch(http.MethodGet, "http://"+s.address+"/healthz", nil)
		if err != nil {
			return err
		}
		var v struct{ PID int }
		if err := json.Unmarshal(text, &v); err != nil {
			return err
		}
		if pids[v.PID] = true; len(pids) < n {
			return fmt.Errorf("of %d workers %d answers", n, len(pids))
		}
		return nil
	})
}
