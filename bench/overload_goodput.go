package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"preforkd/internal/load"
)

const (
	heavyModel    = "heavy"
	heavyMillis   = 10.0 // CPU time of one run
	crowd         = 4096 // clients
	overloaded    = 2.0  // × the capacity arrive
	patience      = time.Second
	capacityConns = 8
)

// heavyGuess is the heavy model before its layers are counted anew.
var heavyGuess = perceptron{Width: 512, Layers: 12, Positions: 128}

// crowded is a service under too much load, and what its clients say.
type crowded struct {
	name     string
	settings string // preforkd's
	header   string // of the requests in the overload, one line
	peer     string // its name; empty: preforkd
}

var crowdedOnes = []crowded{
	{name: "preforkd, X-Request-Timeout: 1s", header: "X-Request-Timeout: 1s"},
	{name: "preforkd, nothing said"},
	{name: "preforkd, queue.max_wait: 500ms", settings: "queue: {max_wait: 500ms}"},
	{name: fastPeer, peer: fastPeer},
	{name: fmt.Sprintf("%s of %d", limitPeer, uvicornLimit), peer: limitPeer},
}

// goodRun is one overload of one service.
type goodRun struct {
	Name     string             `json:"name"`
	Round    int                `json:"round"`
	Capacity [2]float64         `json:"capacity"` // answers a second in a closed loop, before and after
	Each     time.Duration      `json:"each_ns"`  // the server's CPU time for one of those
	Offered  float64            `json:"offered"`  // requests a second
	Good     int                `json:"good"`     // answers in time
	Measured time.Duration      `json:"measured_ns"`
	Load     *visit             `json:"load"`
	Fates    map[string]float64 `json:"fates"` // warm-up included
}

func (g *goodRun) capacity() float64 { return (g.Capacity[0] + g.Capacity[1]) / 2 }
func (g *goodRun) goodput() float64  { return float64(g.Good) / g.Measured.Seconds() }
func (g *goodRun) share() float64    { return 100 * g.goodput() / g.capacity() }

// spent is the server's CPU time in the overload for each answer in time, in ms.
func (g *goodRun) spent() float64 {
	return micros(g.Load.Server) * float64(g.Load.Ended) / 1000 / float64(max(g.Good, 1))
}

// client is how many cores the load needs.
func (g *goodRun) client() float64 {
	return g.Load.Client.Seconds() * float64(g.Load.Ended) / g.Load.Window.Seconds()
}

// byCPU is the share of the answers that the CPU time would have been enough for: that of
// the server, and that which nobody used. Whatever else the machine does is not in it.
func (g *goodRun) byCPU() float64 {
	enough := (g.Load.Server*time.Duration(g.Load.Ended) + g.Load.Idle).Seconds() / g.Each.Seconds()
	return 100 * float64(g.Good) / enough
}

// refused is a quantile of the times of refusals, in ms.
func (g *goodRun) refused(q func(load.Summary) time.Duration) float64 {
	return micros(q(g.Load.Report.Others[http.StatusServiceUnavailable])) / 1000
}

func p50Of(s load.Summary) time.Duration { return s.P50 }
func p99Of(s load.Summary) time.Duration { return s.P99 }

// goodputs is the raw data of overload-goodput.
type goodputs struct {
	Rounds int        `json:"rounds"`
	Model  perceptron `json:"model"`
	Millis float64    `json:"cpu_ms"` // of a call of the engine alone
	Runs   []*goodRun `json:"runs"`
	chosen []crowded
}

// overloadGoodput has more clients ask for more than the service can do, who give up.
func overloadGoodput(ctx context.Context, l *lab) (*result, error) {
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	raw := &goodputs{Rounds: l.times(3)}
	dir := filepath.Join(l.dir, heavyModel)
	if raw.Model, raw.Millis, err = l.heavy(ctx, dir); err != nil {
		return nil, err
	}
	l.say("%s is %d layers, %.1f ms of CPU a call", heavyModel, raw.Model.Layers, raw.Millis)
	notes := []string{"preforkd: " + version}
	peers, missing := l.peerVersions(ctx)
	for _, c := range crowdedOnes {
		switch {
		case l.peers != "" && !strings.Contains(","+l.peers+",", ","+ours+",") && c.peer == "":
		case c.peer != "" && missing != nil:
			notes = append(notes, fmt.Sprintf("%s is left out: %v", c.name, missing))
		default:
			raw.chosen = append(raw.chosen, c)
		}
	}
	if missing == nil {
		notes = append(notes, "peers: "+peers)
	}
	for round := range raw.Rounds {
		for i := range raw.chosen {
			c := raw.chosen[(i+round)%len(raw.chosen)]
			r, err := l.crowd(ctx, c, dir, raw.Millis)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			r.Round = round
			l.say("round %d of %d: %s: capacity %.0f and %.0f/s, %.0f good/s (%.0f %%, by CPU %.0f %%), refused p50 %.2f ms, p99 %.1f ms, %.1f ms CPU a good answer, load %.2f cores, others %.0f %%; %v",
				round+1, raw.Rounds, c.name, r.Capacity[0], r.Capacity[1], r.goodput(), r.share(), r.byCPU(), r.refused(p50Of), r.refused(p99Of), r.spent(), r.client(), others(r.Load), r.Load.Report.Statuses)
			raw.Runs = append(raw.Runs, r)
		}
	}
	return &result{
		Title:  fmt.Sprintf("Overload: %d clients that give up after %v ask for %v × the capacity, %.1f ms of CPU an answer, 2 workers", crowd, patience, overloaded, raw.Millis),
		Tables: []table{raw.table(), raw.fateTable()},
		Goals:  raw.goals(),
		Notes:  append(notes, raw.notes(l)...),
		Raw:    raw,
	}, nil
}

// heavy writes the heavy model, with as many layers as need the CPU time that is wanted, and
// returns what a call of it needs.
func (l *lab) heavy(ctx context.Context, dir string) (p perceptron, millis float64, err error) {
	if err := l.buildPeer(ctx, "engine"); err != nil {
		return p, 0, err
	}
	p = heavyGuess
	for range 3 { // the second time it fits, if the machine is steady
		if err := p.write(dir, ""); err != nil {
			return p, 0, err
		}
		e, err := l.engineRows(ctx, dir, 1, of(&l.options, 2*time.Second, 500*time.Millisecond))
		if err != nil {
			return p, 0, err
		}
		millis = e.micros() / 1000
		if millis > 0.9*heavyMillis && millis < 1.1*heavyMillis {
			break
		}
		p.Layers = max(1, int(float64(p.Layers)*heavyMillis/millis+0.5))
	}
	return p, millis, nil
}

// crowd measures the capacity of one service, overloads it, and measures its capacity again.
func (l *lab) crowd(ctx context.Context, c crowded, dir string, millis float64) (r *goodRun, err error) {
	path, body := inferPath(heavyModel), inferBody(&l.samples[0])
	var s *standing
	if c.peer != "" {
		path, body = "/predict", predictBody(&l.samples[0])
		s, err = l.standPeer(ctx, c.peer, millis)
	} else {
		s, err = l.stand(ctx, "crowded", c.settings, modelFile{heavyModel, dir, ""})
	}
	if err != nil {
		return nil, err
	}
	defer s.end()
	r = &goodRun{Name: c.name}
	closed := load.Options{
		Addr: s.address, Conns: capacityConns, Keepalive: true, Request: load.Post(path, textType, body),
		Warmup: l.warmup, Duration: of(&l.options, 5*time.Second, 2*time.Second),
	}
	var before, after map[string]float64
	for i := range r.Capacity {
		v, err := l.loaded(ctx, s, closed)
		if err != nil {
			return nil, err
		}
		r.Capacity[i] = throughput(v)
		r.Each += v.Server / time.Duration(len(r.Capacity))
		if i > 0 {
			break
		}
		if before, err = s.fates(); err != nil {
			return nil, err
		}
		open := closed
		// Where others slowed the closed loop down its answers are too few: what two cores could
		// do is asked of the service then, so that it has too much in any case.
		most := max(r.Capacity[0], float64(min(workersEach, runtime.NumCPU()))/v.Server.Seconds())
		open.Conns, open.Rate, open.Poisson = crowd, overloaded*most, true
		open.Timeout, open.Trace, open.KeepFailures = patience, true, -1
		open.Warmup, open.Duration = of(&l.options, 5*time.Second, 2*time.Second), of(&l.options, 15*time.Second, 5*time.Second)
		if c.header != "" {
			open.Request = load.Post(path, textType, body, c.header)
		}
		if r.Load, err = l.loaded(ctx, s, open); err != nil {
			return nil, err
		}
		r.Offered, r.Measured = open.Rate, open.Duration
		for _, p := range r.Load.Report.Trace {
			if p.Took <= patience {
				r.Good++
			}
		}
		if after, err = s.fates(); err != nil {
			return nil, err
		}
		// Whoever is still in line for a client that has gone is not part of the capacity.
		if err := s.quiet(ctx); err != nil {
			return nil, err
		}
	}
	r.Fates = less(after, before)
	return r, nil
}

// loaded runs a load against s and reads the clocks around it.
func (l *lab) loaded(ctx context.Context, s *standing, o load.Options) (*visit, error) {
	g, err := load.New(o)
	if err != nil {
		return nil, err
	}
	// A collection of the load's own garbage takes as long as a hundred requests where the
	// services leave it little time, and would be seen as theirs.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	v := &visit{Peer: s.name, Main: s.server.PID()}
	if err := v.measure(ctx, g, s.server); err != nil {
		return nil, err
	}
	// A closed loop measures a capacity, so it needs answers; though with a short queue.max_wait
	// even few clients may be too many for a moment. In an overload nobody may get one.
	if failed := v.Report.Failures.Total() - v.Report.Failures[load.Status]; o.Rate == 0 && (failed > 0 || v.Report.Answers == 0) {
		return nil, fmt.Errorf("requests failed:\n%v", v.Report)
	}
	return v, nil
}

// quiet waits until s needs almost no CPU time any more, or half a minute.
func (s *standing) quiet(ctx context.Context) error {
	const look = 200 * time.Millisecond
	before, err := s.server.CPU()
	for range int(30 * time.Second / look) {
		if err := errors.Join(err, rest(ctx, look)); err != nil {
			return err
		}
		now, err := s.server.CPU()
		if err != nil {
			return err
		}
		if now-before < look/10 {
			return nil
		}
		before = now
	}
	return nil // its capacity will show it
}

func (g *goodputs) column(name string, number func(*goodRun) float64) (values []float64) {
	for _, r := range g.Runs {
		if r.Name == name {
			values = append(values, number(r))
		}
	}
	return values
}

func (g *goodputs) table() table {
	t := table{head: []string{
		"service", "capacity/s", "offered/s", "good/s", "goodput", "min–max", "by CPU time", "min–max", "good p50 ms", "refused p50 ms", "refused p99 ms",
		"CPU ms/good answer", "at capacity", "load, cores", "late at most, ms", "others",
	}}
	for _, c := range g.chosen {
		middle := func(number func(*goodRun) float64) string { return digits(median(g.column(c.name, number))) }
		share, byCPU := g.column(c.name, (*goodRun).share), g.column(c.name, (*goodRun).byCPU)
		t.add(c.name, middle((*goodRun).capacity), middle(func(r *goodRun) float64 { return r.Offered }), middle((*goodRun).goodput),
			digits(median(share))+" %", spread(share),
			digits(median(byCPU))+" %", spread(byCPU),
			middle(func(r *goodRun) float64 { return micros(r.Load.Report.Latency.P50) / 1000 }),
			middle(func(r *goodRun) float64 { return r.refused(p50Of) }), middle(func(r *goodRun) float64 { return r.refused(p99Of) }),
			middle((*goodRun).spent), middle(func(r *goodRun) float64 { return micros(r.Each) / 1000 }),
			middle((*goodRun).client), middle(func(r *goodRun) float64 { return micros(r.Load.Report.Queue.MaxWait) / 1000 }),
			middle(func(r *goodRun) float64 { return others(r.Load) })+" %")
	}
	return t
}

// fateTable has what became of the requests, by the clients and by preforkd's own counters.
func (g *goodputs) fateTable() table {
	fates := []string{"refused full", "refused slow", "refused late", "expired waiting", "expired running", "abandoned waiting", "abandoned running"}
	t := table{head: append([]string{"share of the requests", "200", "503", "504", "gave up", "other"}, fates...)}
	for _, c := range g.chosen {
		middle := func(number func(*goodRun) float64) string {
			return digits(median(g.column(c.name, number))) + " %"
		}
		seen := func(number func(*load.Report) uint64) string {
			return middle(func(r *goodRun) float64 {
				return 100 * float64(number(r.Load.Report)) / float64(max(r.Load.Report.Requests, 1))
			})
		}
		status := func(code int) func(*load.Report) uint64 {
			return func(r *load.Report) uint64 { return r.Statuses[code] }
		}
		cells := []string{
			c.name, seen(status(http.StatusOK)), seen(status(http.StatusServiceUnavailable)), seen(status(http.StatusGatewayTimeout)),
			seen(func(r *load.Report) uint64 { return r.Failures[load.Timeout] }),
			seen(func(r *load.Report) uint64 {
				return r.Requests - r.Statuses[http.StatusOK] - r.Statuses[http.StatusServiceUnavailable] - r.Statuses[http.StatusGatewayTimeout] - r.Failures[load.Timeout]
			}),
		}
		for _, fate := range fates {
			if c.peer != "" {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, middle(func(r *goodRun) float64 {
				return 100 * r.Fates[fate] / float64(max(r.Load.Report.Queue.Arrivals, 1))
			}))
		}
		t.add(cells...)
	}
	return t
}

// refusals returns the p99 of refusals of each round that had any.
func (g *goodputs) refusals(name string) (values []float64) {
	for _, r := range g.Runs {
		if r.Name == name && r.Load.Report.Statuses[http.StatusServiceUnavailable] > 0 {
			values = append(values, r.refused(p99Of))
		}
	}
	return values
}

func (g *goodputs) goals() (all []goal) {
	for _, c := range g.chosen {
		if c.peer != "" {
			continue
		}
		all = append(all,
			goal{Text: c.name + ": goodput by the capacity", Limit: 90, Unit: " %", Values: g.column(c.name, (*goodRun).share)}.judge(),
			goal{Text: c.name + ": goodput by the CPU time that was there", Limit: 90, Unit: " %", Values: g.column(c.name, (*goodRun).byCPU)}.judge(),
			goal{Text: c.name + ": p99 of refusals", Limit: 25, AtMost: true, Unit: " ms", Values: g.refusals(c.name)}.judge())
	}
	return all
}

func (g *goodputs) notes(l *lab) []string {
	notes := []string{
		fmt.Sprintf("%s is %d layers of %d×%d at %d positions; a peer spins for the CPU time of a call of the engine alone", heavyModel,
			g.Model.Layers, g.Model.Width, g.Model.Width, g.Model.Positions),
		fmt.Sprintf("capacity: the mean of two closed loops of %d clients, before and after the overload of the same service; arrivals are Poisson's, as many as %v × the first of them, or × what as many cores as workers could do at its CPU time of an answer, if that is more", capacityConns, overloaded),
		"good: status 200 within the second, counted from when the request was due; refused: status 503; the warm-up of 5 s does not count, except in preforkd's own counters (the last seven columns)",
		"by CPU time: good answers by those for which the server's CPU time and the cores' idle time in the overload were enough, at the CPU time of an answer at capacity: what other processes take from the machine is not in it",
		"the load has one thread (GOMAXPROCS 1) and takes its share of the two cores, also from the services; how late it was at most with what was due is in every latency",
	}
	var unsent, queued uint64
	for _, r := range g.Runs {
		unsent, queued = unsent+r.Load.Report.Queue.Unsent, max(queued, r.Load.Report.Queue.Longest)
	}
	return append(notes, fmt.Sprintf("arrivals that found every client busy and were never sent: %d; that waited at once for the load itself: at most %d", unsent, queued))
}
