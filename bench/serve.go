package main

import (
	"context"
	"fmt"
	"time"
)

// served is the raw data of the scenario serve.
type served struct {
	Conns    int               `json:"conns"`
	Warmup   time.Duration     `json:"warmup_ns"`
	Duration time.Duration     `json:"duration_ns"`
	Rounds   int               `json:"rounds"`
	Versions map[string]string `json:"versions"`
	Visits   []*visit          `json:"visits"`
	Engine   []*engineCall     `json:"engine"` // one a round
}

// serve measures every peer once a round. Each round begins with the next one, so that
// none always comes after the same.
func serve(ctx context.Context, l *lab) (*result, error) {
	chosen, versions, left := l.chosenPeers(ctx, peers)
	if len(chosen) == 0 {
		return nil, fmt.Errorf("there is nothing to measure: %v", left)
	}
	if err := l.buildPeer(ctx, "engine"); err != nil {
		return nil, err
	}
	raw := &served{Conns: l.conns, Warmup: l.warmup, Duration: l.duration, Rounds: l.times(5), Versions: versions}
	for round := range raw.Rounds {
		for i := range chosen {
			p := chosen[(i+round)%len(chosen)]
			v, err := l.visit(ctx, p, round)
			if err != nil {
				return nil, err
			}
			l.say("round %d of %d: %-14s %7.0f requests/s  %6.1f µs CPU a request  p99 %v", round+1, raw.Rounds, p.name,
				v.Report.Throughput(), micros(v.Server), v.Report.Latency.P99.Round(10*time.Microsecond))
			raw.Visits = append(raw.Visits, v)
		}
		e, err := l.engine(ctx, "digits")
		if err != nil {
			return nil, err
		}
		l.say("round %d of %d: engine call %.2f µs CPU", round+1, raw.Rounds, e.micros())
		raw.Engine = append(raw.Engine, e)
	}
	return &result{
		Title:  "POST /predict and JSON infer: 64 numbers, model digits, keep-alive, 2 workers",
		Tables: []table{raw.table(chosen)},
		Goals:  raw.goals(),
		Notes:  raw.notes(left),
		Raw:    raw,
	}, nil
}

// column returns one number of each visit to a peer, in the order of the rounds.
func (s *served) column(peer string, number func(*visit) float64) (values []float64) {
	for round := range s.Rounds {
		for _, v := range s.Visits {
			if v.Peer == peer && v.Round == round {
				values = append(values, number(v))
			}
		}
	}
	return values
}

func throughput(v *visit) float64 { return v.Report.Throughput() }
func serverCPU(v *visit) float64  { return micros(v.Server) }
func clientCPU(v *visit) float64  { return micros(v.Client) }
func others(v *visit) float64     { return 100 * v.Others }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// table has the medians over the rounds.
func (s *served) table(chosen []peer) table {
	t := table{head: []string{
		"peer", "requests/s", "server CPU µs/request", "requests/CPU second", "p50 µs", "p99 µs",
		"client CPU µs/request", "other processes",
	}}
	for _, p := range chosen {
		middle := func(number func(*visit) float64) float64 { return median(s.column(p.name, number)) }
		t.add(p.name, digits(middle(throughput)), digits(middle(serverCPU)), digits(1e6/middle(serverCPU)),
			digits(middle(func(v *visit) float64 { return micros(v.Report.Latency.P50) })),
			digits(middle(func(v *visit) float64 { return micros(v.Report.Latency.P99) })),
			digits(middle(clientCPU)), fmt.Sprintf("%.1f %%", middle(others)))
	}
	if len(s.Engine) > 0 {
		t.add("engine call", "", digits(median(s.engine())), "", "", "", "", "")
	}
	return t
}

// engine returns the CPU time of an engine call in µs, one a round.
func (s *served) engine() (values []float64) {
	for _, e := range s.Engine {
		values = append(values, e.micros())
	}
	return values
}

// goals are judged by the median of what each round gives.
func (s *served) goals() []goal {
	cpu := func(peer string) []float64 { return s.column(peer, serverCPU) }
	all := []goal{
		{
			Text: "throughput of /predict, × bare", Limit: 0.9, Unit: " ×",
			Values: ratios(s.column(ours, throughput), s.column(bare, throughput)),
		},
		{Text: "server CPU of /predict, × bare", Limit: 1.1, AtMost: true, Unit: " ×", Values: ratios(cpu(ours), cpu(bare))},
		{Text: "requests per CPU second, × FastAPI def", Limit: 17, Unit: " ×", Values: ratios(cpu(fastDef), cpu(ours))},
		{Text: "requests per CPU second, × FastAPI async def", Limit: 12, Unit: " ×", Values: ratios(cpu(fastAsyn), cpu(ours))},
		{
			Text: "server CPU of /predict beyond the engine call", Limit: 40, AtMost: true, Unit: " µs",
			Values: differences(cpu(ours), s.engine()),
		},
		{
			Text: "server CPU of JSON infer beyond the engine call", Limit: 40, AtMost: true, Unit: " µs",
			Values: differences(cpu(infer), s.engine()),
		},
	}
	for i := range all {
		all[i] = all[i].judge()
	}
	return all
}

func (s *served) notes(left []string) []string {
	notes := []string{fmt.Sprintf("%d connections; %d rounds of %v each after %v of warm-up, peers in turn; medians over the rounds",
		s.Conns, s.Rounds, s.Duration, s.Warmup)}
	for _, svc := range []*service{&preforkd, &bareHTTP, &fastAPI} {
		if version, ok := s.Versions[svc.name]; ok {
			notes = append(notes, svc.name+": "+version)
		}
	}
	if len(s.Engine) > 0 {
		notes = append(notes, "engine: ONNX Runtime "+s.Engine[0].Version+", one thread a session")
	}
	for _, v := range s.Visits {
		if v.Others > 0.05 {
			notes = append(notes, fmt.Sprintf("round %d, %s: other processes used %.0f %% of the cores", v.Round+1, v.Peer, 100*v.Others))
		}
	}
	return append(notes, left...)
}
