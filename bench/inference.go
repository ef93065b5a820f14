package main

import (
	"context"
	"fmt"
	"time"
)

// The names of the peers of the scenario inference, beside infer.
const (
	binaryOurs = "preforkd-binary"
	binaryBare = "bare-binary"
	inferBare  = "bare-infer"
	floatModel = "digits-cnn"
	smallModel = "digits-int8"
)

// inferring are its peers. The last two are models of ours, one made of the other.
var inferring = []peer{
	{binaryOurs, &preforkd, inferBinary},
	{binaryBare, &bareHTTP, inferBinary},
	{infer, &preforkd, inferJSON},
	{inferBare, &bareHTTP, inferJSON},
	{floatModel, &preforkd, binaryQuestion(floatModel)},
	{smallModel, &preforkd, binaryQuestion(smallModel)},
}

// inferred is the raw data of the scenario inference.
type inferred struct {
	served
	Models    map[string][]*engineCall `json:"models"`   // one a round
	Image     []allocated              `json:"image"`    // of each form, two a round
	Accuracy  []*accuracy              `json:"accuracy"` // of the models that are compared
	Allocated []allocated              `json:"allocated"`
}

// inferences measures each form of inference beside the bare process, and the engine alone,
// in turns; then what needs no peers.
func inferences(ctx context.Context, l *lab) (*result, error) {
	chosen, versions, left := l.chosenPeers(ctx, inferring)
	if len(chosen) == 0 {
		return nil, fmt.Errorf("there is nothing to measure: %v", left)
	}
	if err := l.buildPeer(ctx, "engine"); err != nil {
		return nil, err
	}
	if l.short {
		l.warmup, l.duration = l.warmup/4, l.duration/4
	}
	raw := &inferred{
		served: served{Conns: l.conns, Warmup: l.warmup, Duration: l.duration, Rounds: l.times(5), Versions: versions},
		Models: map[string][]*engineCall{},
	}
	for round := range raw.Rounds {
		if err := raw.round(ctx, l, chosen, round); err != nil {
			return nil, err
		}
	}
	raw.Engine = raw.Models["digits"]
	var err error
	if raw.Accuracy, err = l.accuracies(ctx, floatModel, smallModel); err != nil {
		return nil, err
	}
	if raw.Allocated, err = l.benchmarks(ctx, "./internal/worker", "BenchmarkRequest", "-benchtime", "20000x"); err != nil {
		return nil, err
	}
	return &result{
		Title: "Inference: 64 numbers, model digits, keep-alive, 2 workers",
		Tables: []table{
			raw.table(chosen), raw.ratioTable(), raw.clockTable(chosen), raw.modelTable(), raw.imageTable(), allocationTable(raw.Allocated),
		},
		Goals: raw.goals(),
		Notes: append(append(raw.notes(left), raw.floor()...), inferenceNotes...),
		Raw:   raw,
	}, nil
}

// round measures each peer once, and what needs no server.
func (r *inferred) round(ctx context.Context, l *lab, chosen []peer, round int) error {
	for _, i := range inPairs(len(chosen), round) {
		p := chosen[i]
		v, err := l.visit(ctx, p, round)
		if err != nil {
			return err
		}
		l.say("round %d of %d: %-16s %7.0f requests/s  %6.1f µs CPU a request  p99 %v", round+1, r.Rounds, p.name,
			v.Report.Throughput(), micros(v.Server), v.Report.Latency.P99.Round(10*time.Microsecond))
		r.Visits = append(r.Visits, v)
	}
	for _, model := range []string{"digits", floatModel, smallModel} {
		e, err := l.engine(ctx, model)
		if err != nil {
			return err
		}
		l.say("round %d of %d: engine call of %s %.2f µs CPU", round+1, r.Rounds, model, e.micros())
		r.Models[model] = append(r.Models[model], e)
	}
	image, err := l.benchmarks(ctx, "./internal/worker/codec", "BenchmarkInferImage", "-benchtime", "200ms", "-count", "2")
	r.Image = append(r.Image, image...)
	return err
}

// inPairs returns the order of n peers in a round: those that are compared follow each other,
// each of them first in turn, and each round begins with the next two.
func inPairs(n, round int) (order []int) {
	for i := range n {
		if other := i ^ 1; round%2 == 1 && other < n {
			i = other
		}
		order = append(order, (i+2*round)%n)
	}
	return order
}

// calls returns the CPU time of a model's engine call in µs, one a round.
func (r *inferred) calls(model string) (values []float64) {
	for _, e := range r.Models[model] {
		values = append(values, e.micros())
	}
	return values
}

func beyondByClock(v *visit) float64 { return v.Clocks.beyond() }

// goals are judged by the median of what each round gives.
func (r *inferred) goals() []goal {
	cpu := func(peer string) []float64 { return r.column(peer, serverCPU) }
	all := []goal{
		{
			Text: "throughput of binary infer, × bare", Limit: 0.9, Unit: " ×",
			Values: ratios(r.column(binaryOurs, throughput), r.column(binaryBare, throughput)),
		},
		{
			Text: "server time of binary infer beyond the engine", Limit: 15, AtMost: true, Unit: " µs",
			Values: r.column(binaryOurs, beyondByClock),
		},
		{
			Text: "server time of JSON infer beyond the engine", Limit: 40, AtMost: true, Unit: " µs",
			Values: r.column(infer, beyondByClock),
		},
		{
			Text: "server CPU of binary infer beyond the engine call", Limit: 15, AtMost: true, Unit: " µs",
			Values: differences(cpu(binaryOurs), r.calls("digits")),
		},
		{
			Text: "server CPU of JSON infer beyond the engine call", Limit: 40, AtMost: true, Unit: " µs",
			Values: differences(cpu(infer), r.calls("digits")),
		},
	}
	for _, name := range distinct(r.Image) {
		all = append(all, goal{Text: "an image of " + name + " numbers in JSON, parsed", Limit: 300, Unit: " MB/CPU s", Values: column(r.Image, name, work)})
	}
	for _, a := range r.Allocated {
		if a.Name != "engine" {
			all = append(all, goal{Text: a.Name, AtMost: true, Unit: " allocations", Values: []float64{a.Allocs}})
		}
	}
	for i := range all {
		all[i] = all[i].judge()
	}
	return all
}

// floor says how much of the server CPU beyond the engine call the bare process needs, too.
func (r *inferred) floor() (notes []string) {
	for _, p := range []struct{ form, peer string }{{"binary", binaryBare}, {"JSON", inferBare}} {
		if beyond := differences(r.column(p.peer, serverCPU), r.calls("digits")); len(beyond) > 0 {
			notes = append(notes, fmt.Sprintf("bare needs %s µs of server CPU beyond the engine call in the %s form", digits(median(beyond)), p.form))
		}
	}
	return notes
}

var inferenceNotes = []string{
	"server time: preforkd's own clocks, from the request read to the answer written, less the engine and the wait for it; " +
		"server CPU also has the kernel's part, HTTP and the supervisor's",
	"an image is 224×224×3 FP32: 150528 numbers, whole from 0 to 255, or with all digits of a float32 or float64; MB of JSON text",
	"allocations: of 20000 requests each after warm-up, with the real engine; of those over a socket the client is one part, which allocates nothing",
}
