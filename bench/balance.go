package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

// balancer is a service whose workers run one request each at a time.
type balancer struct {
	name    string
	prepare func(context.Context, *lab) (version string, err error) // an error leaves it out
	stand   func(ctx context.Context, l *lab, workers int) (*standing, error)
}

// The names of the balancers, as goals refer to them.
const (
	apart     = "preforkd, a line each"
	reuseport = "SO_REUSEPORT"
	gthread   = "gunicorn gthread"
	ideal     = "ideal"
)

// steady is how far the two measurements of the ideal may be apart where a round counts.
const steady = 0.05

// balancers are compared with the last one, which is measured twice as often.
var balancers = []balancer{
	{ours, ourVersion, func(ctx context.Context, l *lab, workers int) (*standing, error) {
		return l.standOf(ctx, workers, ours, balanceSettings, l.digits())
	}},
	{apart, ourVersion, func(ctx context.Context, l *lab, workers int) (*standing, error) {
		return l.standOf(ctx, workers, apart, balanceSettings+"queue: {shared: false}\n", l.digits())
	}},
	{reuseport, buildBalance, func(ctx context.Context, l *lab, workers int) (*standing, error) {
		return l.standBalance(ctx, reuseport, nil, "-processes", strconv.Itoa(workers))
	}},
	{gthread, gthreadVersion, standGthread},
	{ideal, buildBalance, func(ctx context.Context, l *lab, workers int) (*standing, error) {
		return l.standBalance(ctx, ideal, nil, "-permits", strconv.Itoa(workers))
	}},
}

// balanceSettings has the routes of bench/peers/balance.
const balanceSettings = `lab: true
concurrency: {limit: 1}
routes:
  /wait: {layer: compute, sleep: 10ms}
  /burn: {layer: compute, burn: 10ms}
  /short: {layer: compute, sleep: 1ms}
  /long: {layer: compute, sleep: 50ms}
`

func ourVersion(ctx context.Context, l *lab) (string, error) {
	version, err := l.output(ctx, l.bin("preforkd"), "version")
	return strings.TrimSpace(version), err
}

// digits is a model that nobody asks: a service has one.
func (l *lab) digits() modelFile {
	return modelFile{"digits", filepath.Join(l.root, "models", "digits"), ""}
}

func buildBalance(ctx context.Context, l *lab) (string, error) {
	return "fasthttp, " + runtime.Version(), l.buildPeer(ctx, "balance")
}

// standBalance starts the Go program of bench/peers/balance.
func (l *lab) standBalance(ctx context.Context, name string, env []string, args ...string) (*standing, error) {
	s := &standing{name: name}
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	s.address = "127.0.0.1:" + strconv.Itoa(port)
	err = l.raise(ctx, s, proc.Spec{Name: name, Dir: l.root, Env: env, Args: append([]string{l.bin("balance"), "-listen", s.address}, args...)},
		func(ctx context.Context) error {
			_, err := s.server.FirstLine(ctx)
			return err
		})
	return s, err
}

func gthreadVersion(ctx context.Context, l *lab) (string, error) {
	text, err := l.output(ctx, python, "-c", `import gunicorn, platform; print("gunicorn", gunicorn.__version__, "on Python", platform.python_version())`)
	if err != nil {
		return "", errors.New("try: apt-get install gunicorn")
	}
	return strings.TrimSpace(text) + ", -k gthread --threads 1 --keep-alive 75", nil
}

func standGthread(ctx context.Context, l *lab, workers int) (*standing, error) {
	s := &standing{name: gthread}
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	s.address = "127.0.0.1:" + strconv.Itoa(port)
	err = l.raise(ctx, s, proc.Spec{
		Name: gthread, Dir: filepath.Join(l.root, "bench", "peers", "balance"), Env: []string{"PYTHONDONTWRITEBYTECODE=1"},
		Args: []string{
			python, "-m", "gunicorn", "-k", "gthread", "--threads", "1", "--workers", strconv.Itoa(workers), "--keep-alive", "75",
			"--log-level", "error", "--bind", s.address, "app:app",
		},
	}, func(ctx context.Context) error {
		pids := map[int]bool{}
		return s.server.AwaitReady(ctx, func() error {
			text, err := fetch(http.MethodGet, "http://"+s.address+"/pid", nil)
			if err != nil {
				return err
			}
			var v struct{ PID int }
			if err := json.Unmarshal(text, &v); err != nil {
				return err
			}
			if pids[v.PID] = true; len(pids) < workers {
				return fmt.Errorf("of %d workers %d answers", workers, len(pids))
			}
			return nil
		})
	})
	return s, err
}

// chosenBalancers returns the ideal, those that --peers names and that are installed, and what
// there is to say of each.
func (l *lab) chosenBalancers(ctx context.Context) (chosen []balancer, notes []string, err error) {
	for _, b := range balancers {
		if b.name != ideal && l.peers != "" && !strings.Contains(","+l.peers+",", ","+b.name+",") {
			continue
		}
		version, err := b.prepare(ctx, l)
		switch {
		case err == nil:
			chosen, notes = append(chosen, b), append(notes, b.name+": "+version)
		case b.name == gthread:
			notes = append(notes, fmt.Sprintf("%s is left out: %v", b.name, err))
		default:
			return nil, nil, err
		}
	}
	return chosen, notes, nil
}

// balanceRun is one measurement of one service in one cell.
type balanceRun struct {
	Name  string      `json:"name"`
	Cell  balanceCell `json:"cell"`
	Round int         `json:"round"`
	Load  *visit      `json:"load"`
	// Moved is how many requests preforkd put into the common queue for each that was answered,
	// warm-up included in both; of others 0.
	Moved float64 `json:"moved"`
}

func (r *balanceRun) rate() float64 { return r.Load.Report.Throughput() }
func (r *balanceRun) p99() float64  { return micros(r.Load.Report.Latency.P99) / 1000 }

// among has everybody stand at once, each idle while another is measured, and measures them in
// turns in every cell: who begins changes, and half of the others are between the two
// measurements of the ideal.
func (l *lab) among(ctx context.Context, chosen []balancer, cells []balanceCell, round int, measure func(*standing, balanceCell) (*balanceRun, error)) (runs []*balanceRun, err error) {
	for workers, group := range byWorkers(cells) {
		var all []*standing
		end := func() {
			for _, s := range all {
				s.end()
			}
		}
		for _, b := range chosen {
			s, err := b.stand(ctx, l, workers)
			if err != nil {
				end()
				return nil, fmt.Errorf("%s: %w", b.name, err)
			}
			all = append(all, s)
		}
		turns := slices.Insert(slices.Clone(all), (len(all)-1)/2, all[len(all)-1])
		for i, c := range group {
			for turn := range turns {
				s := turns[(turn+i+round)%len(turns)]
				r, err := measure(s, c)
				if err != nil {
					end()
					return nil, fmt.Errorf("%s, %v: %w", s.name, c, err)
				}
				r.Name, r.Cell, r.Round = s.name, c, round
				runs = append(runs, r)
				l.say("round %d: %v: %-22s %6.0f/s  p50 %6.1f ms  p99 %6.1f ms  moved %.2f  failed %d  others %.0f %%", round+1, c, s.name, r.rate(),
					micros(r.Load.Report.Latency.P50)/1000, r.p99(), r.Moved, r.Load.Report.Failures.Total(), others(r.Load))
			}
		}
		end()
	}
	return runs, nil
}

// byWorkers yields the cells of each number of workers, in their order.
func byWorkers(cells []balanceCell) func(func(int, []balanceCell) bool) {
	return func(yield func(int, []balanceCell) bool) {
		for len(cells) > 0 {
			n := slices.IndexFunc(cells, func(c balanceCell) bool { return c.Workers != cells[0].Workers })
			if n < 0 {
				n = len(cells)
			}
			if !yield(cells[0].Workers, cells[:n]) {
				return
			}
			cells = cells[n:]
		}
	}
}

// balanceLoad measures s; beside are run at the same time and not reported. No request may fail but those of gunicorn,
// whose failures are in the report.
func (l *lab) balanceLoad(ctx context.Context, s *standing, o load.Options, beside ...load.Options) (*balanceRun, error) {
	g, err := load.New(o)
	if err != nil {
		return nil, err
	}
	runtime.GC() // as in loaded: the load's own collections would be seen as the service's
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before, err := s.moved()
	if err != nil {
		return nil, err
	}
	r := &balanceRun{Load: &visit{Peer: s.name, Main: s.server.PID()}}
	reports, errs := make([]*load.Report, len(beside)), make(chan error, len(beside))
	for i := range beside {
		go func() { // ends with the load; awaited below
			var err error
			reports[i], err = load.Run(ctx, beside[i])
			errs <- err
		}()
	}
	err = r.Load.measure(ctx, g, s.server)
	for range beside {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return nil, err
	}
	for _, report := range append(reports, r.Load.Report) {
		if failed := report.Failures.Total(); (failed > 0 && s.name != gthread) || report.Answers == 0 {
			return nil, fmt.Errorf("requests failed:\n%v", report)
		}
		r.Moved += float64(report.Answers + report.Warmup.Answers)
	}
	after, err := s.moved()
	r.Moved = (after - before) / r.Moved
	return r, err
}

// moved is how many requests preforkd has put into the common queue.
func (s *standing) moved() (float64, error) {
	if s.ops == "" {
		return 0, nil
	}
	text, err := fetch(http.MethodGet, "http://"+s.ops+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	return counter(text, "preforkd_requests_queued_total")
}

// counter adds up the values that a metric has in the text form, whatever its labels.
func counter(text []byte, name string) (sum float64, err error) {
	found := false
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok || len(rest) == 0 || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		v, err := strconv.ParseFloat(string(bytes.TrimSpace(rest[bytes.LastIndexByte(rest, ' ')+1:])), 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("the metric %s is not in %.200q", name, text)
	}
	return sum, nil
}

// compared is what a number of one service is to that of the ideal in one cell.
type compared struct {
	All    []float64 // ratios, one a round
	Steady []float64 // those of rounds in which the ideal was the same twice
}

// compare returns the ratios of name's number to the mean of the ideal's two in the same round.
func compare(runs []*balanceRun, c balanceCell, name string, number func(*balanceRun) float64) (v compared) {
	for _, r := range runs {
		if r.Name != name || r.Cell != c {
			continue
		}
		var twice []float64
		for _, i := range runs {
			if i.Name == ideal && i.Cell == c && i.Round == r.Round {
				twice = append(twice, number(i))
			}
		}
		if len(twice) == 0 {
			continue
		}
		ratio := number(r) / mean(twice)
		v.All = append(v.All, ratio)
		if apartBy(twice) < steady {
			v.Steady = append(v.Steady, ratio)
		}
	}
	return v
}

func mean(values []float64) (sum float64) {
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// apartBy is by how much the largest is more than the smallest, as a share of that.
func apartBy(values []float64) float64 {
	if len(values) < 2 {
		return math.Inf(1)
	}
	return slices.Max(values)/slices.Min(values) - 1
}

const (
	balanceWarmup = 500 * time.Millisecond
	balanceLasts  = 2 * time.Second
)
