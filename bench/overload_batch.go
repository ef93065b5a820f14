package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"preforkd/internal/load"
)

// weightBound is a model whose runs cost the reading of its weights, 64 MB.
var weightBound = perceptron{Width: 1024, Layers: 16, Positions: 1}

const (
	batchMost    = 16
	weightModel  = "mlp"
	batchedModel = "digits"
)

// batchCase is one load that is measured with requests joined and with requests apart.
type batchCase struct {
	model string
	conns int
}

func (c batchCase) String() string { return fmt.Sprintf("%s, %d clients", c.model, c.conns) }

var batchCases = []batchCase{{weightModel, 64}, {batchedModel, 64}, {batchedModel, 16}, {batchedModel, 1}}

// batchVisit is one measurement of a case.
type batchVisit struct {
	*visit
	Joined bool    `json:"joined"`
	Rows   float64 `json:"rows_per_run"`
}

// batched is the raw data of overload-batch.
type batched struct {
	Rounds int             `json:"rounds"`
	Model  perceptron      `json:"model"`
	Visits []*batchVisit   `json:"visits"`
	Engine [][2]engineRate `json:"engine"` // one a round: of single rows, of whole batches
}

// engineRate is what the engine alone does, as many processes at once as there are workers.
type engineRate struct {
	Rows float64 `json:"rows_per_s"`
	Call float64 `json:"call_cpu_ms"`
	Row  float64 `json:"row_cpu_ms"`
}

// overloadBatch compares requests that are joined with requests that are not.
func overloadBatch(ctx context.Context, l *lab) (*result, error) {
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	if err := l.buildPeer(ctx, "engine"); err != nil {
		return nil, err
	}
	dir := filepath.Join(l.dir, weightModel)
	if err := weightBound.write(dir, ""); err != nil {
		return nil, err
	}
	if l.duration /= 2; l.short { // each case is measured twice a round
		l.duration /= 4
	}
	l.warmup /= 2
	raw := &batched{Rounds: l.times(7), Model: weightBound}
	for round := range raw.Rounds {
		if err := raw.round(ctx, l, dir, round); err != nil {
			return nil, err
		}
	}
	return &result{
		Title:  "Requests joined and requests apart: 64 numbers in binary form, keep-alive, 2 workers",
		Tables: []table{raw.table(), raw.ratioTable(), raw.engineTable()},
		Goals:  raw.goals(),
		Notes: append([]string{
			"preforkd: " + version,
			fmt.Sprintf("joined: max_batch_size %d; apart: the same with no_batching: true; all else is the default", batchMost),
			fmt.Sprintf("%s is %d layers of %d×%d and ReLU, %d MB of weights", weightModel, weightBound.Layers, weightBound.Width, weightBound.Width, weightBound.bytes()>>20),
			fmt.Sprintf("%d rounds; in each both services are started anew and measured in turns, joined, apart, apart, joined, %v each after %v of warm-up; ratios within a round",
				raw.Rounds, l.duration, l.warmup),
			"the engine alone: as many processes at once as there are workers, each on one thread, the same numbers in every row",
		}, raw.others()...),
		Raw: raw,
	}, nil
}

// round measures every case twice in either way, and the engine alone.
func (b *batched) round(ctx context.Context, l *lab, dir string, round int) error {
	joined := fmt.Sprintf("max_batch_size: %d\n", batchMost)
	var both [2]*standing
	for i, settings := range []string{joined + "no_batching: true\n", joined} {
		s, err := l.stand(ctx, []string{"apart", "joined"}[i], "",
			modelFile{weightModel, dir, settings}, modelFile{batchedModel, filepath.Join(l.root, "models", batchedModel), settings})
		if err != nil {
			return err
		}
		defer s.end()
		both[i] = s
	}
	for _, c := range batchCases {
		order := []int{1, 0, 0, 1}
		if round%2 == 1 {
			order = []int{0, 1, 1, 0}
		}
		var said [2][]string
		for _, i := range order {
			v, err := l.batchVisit(ctx, both[i], c, round)
			if err != nil {
				return fmt.Errorf("%v, %s: %w", c, both[i].name, err)
			}
			v.Joined = i == 1
			b.Visits = append(b.Visits, v)
			said[i] = append(said[i], fmt.Sprintf("%.0f/s, %.0f µs CPU, %.1f rows a run", v.Report.Throughput(), micros(v.Server), v.Rows))
		}
		l.say("round %d of %d: %v: joined %s; apart %s", round+1, b.Rounds, c, strings.Join(said[1], " and "), strings.Join(said[0], " and "))
	}
	var rates [2]engineRate
	for i, rows := range []int{1, batchMost} {
		var err error
		if rates[i], err = l.engines(ctx, dir, rows); err != nil {
			return err
		}
	}
	l.say("round %d of %d: the engine alone %.0f rows/s by one, %.0f rows/s by %d", round+1, b.Rounds, rates[0].Rows, rates[1].Rows, batchMost)
	b.Engine = append(b.Engine, rates)
	return nil
}

// engines measures calls of so many rows in as many processes at once as there are workers.
func (l *lab) engines(ctx context.Context, dir string, rows int) (rate engineRate, err error) {
	var calls [workersEach]*engineCall
	var errs [workersEach]error
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() { calls[i], errs[i] = l.engineRows(ctx, dir, rows, l.duration) })
	}
	all.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return rate, err
	}
	for _, c := range calls {
		rate.Rows += float64(c.Calls) * float64(rows) / (float64(c.Wall) / 1e9)
		rate.Call += c.micros() / 1000 / workersEach
	}
	rate.Row = rate.Call / float64(rows)
	return rate, nil
}

// batchVisit measures one case on a service that stands.
func (l *lab) batchVisit(ctx context.Context, s *standing, c batchCase, round int) (*batchVisit, error) {
	q := binaryQuestion(c.model)
	base := "http://" + s.address
	want, err := q.ask(base, &l.samples[0])
	if err != nil {
		return nil, err
	}
	before, err := readRuns(base, c.model)
	if err != nil {
		return nil, err
	}
	g, err := load.New(load.Options{
		Addr: s.address, Conns: c.conns, Keepalive: true, Warmup: l.warmup, Duration: l.duration,
		Request: q.request(&l.samples[0]),
		Check:   func(_ int, body []byte) error { return sameNumbers(body, want) },
	})
	if err != nil {
		return nil, err
	}
	v := &batchVisit{visit: &visit{Peer: c.String(), Round: round, Main: s.server.PID()}}
	if err := v.measure(ctx, g, s.server); err != nil {
		return nil, err
	}
	if v.Report.Failures.Total() > 0 || v.Report.Answers == 0 {
		return nil, fmt.Errorf("requests failed:\n%v", v.Report)
	}
	after, err := readRuns(base, c.model)
	v.Rows = float64(after.Requests-before.Requests) / float64(max(after.Runs-before.Runs, 1))
	return v, err
}

// sameNumbers compares the last ten FP32 of two answers in binary form: of a batch they may
// differ in their last bits, as sums are formed in another order.
func sameNumbers(got, want []byte) error {
	const size = 4 * mlpOutputs
	if len(got) != len(want) || len(got) < size {
		return fmt.Errorf("an answer of %d bytes, not %d", len(got), len(want))
	}
	got, want = got[len(got)-size:], want[len(want)-size:]
	for i := 0; i < size; i += 4 {
		a := float64(math.Float32frombits(binary.LittleEndian.Uint32(got[i:])))
		b := float64(math.Float32frombits(binary.LittleEndian.Uint32(want[i:])))
		if !(math.Abs(a-b) <= 1e-4+1e-3*math.Abs(b)) { // also where either is no number
			return fmt.Errorf("output %d is %v, alone it is %v", i/4, a, b)
		}
	}
	return nil
}

// runs are a model's requests and the runs that answered them, since the service was started.
type runs struct {
	Requests int64 `json:"inference_count"`
	Runs     int64 `json:"execution_count"`
}

func readRuns(base, model string) (r runs, err error) {
	text, err := fetch(http.MethodGet, base+"/v2/models/"+model+"/stats", nil)
	if err != nil {
		return r, err
	}
	var a struct {
		Models []runs `json:"model_stats"`
	}
	if err := json.Unmarshal(text, &a); err != nil || len(a.Models) != 1 {
		return r, fmt.Errorf("not the statistics of one model: %.300s (%w)", text, err)
	}
	return a.Models[0], nil
}

// column returns a number of a case, the mean of both measurements of a round.
func (b *batched) column(c batchCase, joined bool, number func(*batchVisit) float64) (values []float64) {
	for round := range b.Rounds {
		sum, n := 0.0, 0
		for _, v := range b.Visits {
			if v.Peer == c.String() && v.Joined == joined && v.Round == round {
				sum += number(v)
				n++
			}
		}
		if n > 0 {
			values = append(values, sum/float64(n))
		}
	}
	return values
}

func (b *batchVisit) throughput() float64 { return throughput(b.visit) }
func (b *batchVisit) cpu() float64        { return serverCPU(b.visit) }
func (b *batchVisit) p50() float64        { return micros(b.Report.Latency.P50) }
func (b *batchVisit) p99() float64        { return micros(b.Report.Latency.P99) }
func (b *batchVisit) clientCPU() float64  { return micros(b.Client) }

// ratio returns a number of the joined by that of those apart, one a round.
func (b *batched) ratio(c batchCase, number func(*batchVisit) float64) []float64 {
	return ratios(b.column(c, true, number), b.column(c, false, number))
}

func (b *batched) table() table {
	t := table{head: []string{"load", "run", "requests/s", "server CPU µs/request", "p50 µs", "p99 µs", "rows a run", "client CPU µs/request"}}
	for _, c := range batchCases {
		for _, joined := range []bool{true, false} {
			middle := func(number func(*batchVisit) float64) string { return digits(median(b.column(c, joined, number))) }
			t.add(c.String(), map[bool]string{true: "joined", false: "apart"}[joined], middle((*batchVisit).throughput), middle((*batchVisit).cpu),
				middle((*batchVisit).p50), middle((*batchVisit).p99), middle(func(v *batchVisit) float64 { return v.Rows }), middle((*batchVisit).clientCPU))
		}
	}
	return t
}

func (b *batched) ratioTable() table {
	t := table{head: []string{"joined × apart, within a round", "throughput", "min–max", "server CPU", "min–max", "p50", "min–max"}}
	for _, c := range batchCases {
		cells := []string{c.String()}
		for _, number := range []func(*batchVisit) float64{(*batchVisit).throughput, (*batchVisit).cpu, (*batchVisit).p50} {
			all := b.ratio(c, number)
			cells = append(cells, digits(median(all))+" ×", spread(all))
		}
		t.add(cells...)
	}
	return t
}

// engine returns a number of the engine alone, one a round.
func (b *batched) engine(number func(single, whole engineRate) float64) (values []float64) {
	for _, e := range b.Engine {
		values = append(values, number(e[0], e[1]))
	}
	return values
}

func engineGain(single, whole engineRate) float64 { return whole.Rows / single.Rows }

// engineSaves is the gain by CPU time, which is the engine's own also beside other processes.
func engineSaves(single, whole engineRate) float64 { return single.Row / whole.Row }

func (b *batched) engineTable() table {
	t := table{head: []string{"the engine alone, " + weightModel, "rows/s", "CPU ms a call", "CPU ms a row"}}
	for i, rows := range []int{1, batchMost} {
		middle := func(number func(engineRate) float64) string {
			return digits(median(b.engine(func(s, w engineRate) float64 { return number([]engineRate{s, w}[i]) })))
		}
		t.add(fmt.Sprintf("rows in a call: %d", rows), middle(func(r engineRate) float64 { return r.Rows }),
			middle(func(r engineRate) float64 { return r.Call }), middle(func(r engineRate) float64 { return r.Row }))
	}
	t.add("gain", digits(median(b.engine(engineGain)))+" ×", "", digits(median(b.engine(engineSaves)))+" ×")
	return t
}

func (b *batched) goals() []goal {
	share := ratios(b.ratio(batchCases[0], (*batchVisit).throughput), b.engine(engineGain))
	cpu := ratios(b.ratio(batchCases[0], func(v *batchVisit) float64 { return 1 / v.cpu() }), b.engine(engineSaves))
	all := []goal{
		{Text: "engine call of one row of " + weightModel + ", CPU", Limit: 2, Unit: " ms", Values: b.engine(func(s, _ engineRate) float64 { return s.Call })},
		{Text: fmt.Sprintf("%v: gain of joining, × the engine's own", batchCases[0]), Limit: 0.8, Unit: " ×", Values: share},
		{Text: fmt.Sprintf("%v: requests a CPU second, gain × the engine's own", batchCases[0]), Limit: 0.8, Unit: " ×", Values: cpu},
		{Text: fmt.Sprintf("%v: throughput joined, × apart", batchCases[1]), Limit: 0.97, Unit: " ×", Values: b.ratio(batchCases[1], (*batchVisit).throughput)},
		{Text: fmt.Sprintf("%v: server CPU joined, × apart", batchCases[1]), Limit: 1.03, AtMost: true, Unit: " ×", Values: b.ratio(batchCases[1], (*batchVisit).cpu)},
		{Text: fmt.Sprintf("%v: throughput joined, × apart", batchCases[2]), Limit: 0.97, Unit: " ×", Values: b.ratio(batchCases[2], (*batchVisit).throughput)},
		{Text: fmt.Sprintf("%v: p50 joined, × apart", batchCases[3]), Limit: 1.03, AtMost: true, Unit: " ×", Values: b.ratio(batchCases[3], (*batchVisit).p50)},
		{Text: fmt.Sprintf("%v: server CPU joined, × apart", batchCases[3]), Limit: 1.03, AtMost: true, Unit: " ×", Values: b.ratio(batchCases[3], (*batchVisit).cpu)},
	}
	for i := range all {
		all[i] = all[i].judge()
	}
	return all
}

// others says how busy the machine was with something else.
func (b *batched) others() []string {
	var all []float64
	for _, v := range b.Visits {
		all = append(all, others(v.visit))
	}
	return []string{fmt.Sprintf("other processes used %s %% of the cores in the median measurement, %s %% at most", digits(median(all)), digits(slices.Max(all)))}
}
