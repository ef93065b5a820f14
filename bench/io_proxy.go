package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

const (
	ioCrowd   = 5000 // requests at once
	ioAfter   = time.Second
	ioLongest = 1.4  // s, of an answer
	ioMemory  = 40.0 // KB for each
	ioHealthy = 50.0 // ms, of /healthz at p99
)

// ioRun is one round of io-proxy.
type ioRun struct {
	Round  int          `json:"round"`
	Load   *visit       `json:"load"`
	Health *load.Report `json:"health"` // asked for meanwhile
	Alone  *load.Report `json:"alone"`  // asked for before
	Before int64        `json:"pss_before_bytes"`
	Peak   peak         `json:"peak"`
}

// each is what a request under way takes, in KB.
func (r *ioRun) each() float64 { return float64(r.Peak.PSS-r.Before) / ioCrowd / 1000 }

// ioProxies is the raw data of io-proxy.
type ioProxies struct {
	Rounds int      `json:"rounds"`
	Runs   []*ioRun `json:"runs"`
}

// ioProxy has thousands wait for a service behind a route at once, and somebody ask for /healthz beside.
func ioProxy(ctx context.Context, l *lab) (*result, error) {
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	if err := l.buildPeer(ctx, "upstream"); err != nil {
		return nil, err
	}
	raw := &ioProxies{Rounds: l.times(3)}
	for round := range raw.Rounds {
		r, err := l.proxied(ctx)
		if err != nil {
			return nil, err
		}
		r.Round = round
		rep := r.Load.Report
		l.say("round %d of %d: %d answers, p50 %.3f s, longest %.3f s; %.1f KB each; %.0f µs CPU a request; /healthz p99 %.1f ms, alone %.1f ms; others %.0f %%", round+1, raw.Rounds,
			rep.Answers, rep.Latency.P50.Seconds(), rep.Latency.Max.Seconds(), r.each(), micros(r.Load.Server), micros(r.Health.Latency.P99)/1000, micros(r.Alone.Latency.P99)/1000, others(r.Load))
		raw.Runs = append(raw.Runs, r)
	}
	return &result{
		Title:  fmt.Sprintf("A route proxy: %d requests at once, whose service answers after %v, 2 workers", ioCrowd, ioAfter),
		Tables: []table{raw.table()},
		Goals:  raw.goals(),
		Notes: []string{
			"preforkd: " + version,
			fmt.Sprintf("%d clients, each with a connection of its own on which it asks again as soon as it is answered; the first answers of each do not count; layers.async.max and http.max_connections are raised, everything else is as by default", ioCrowd),
			"memory: the most that all processes of preforkd had at once (PSS), looked at 5 times a second, less what they had before the first connection, for each request; what the kernel holds for sockets is not in it",
			"the service behind the route is bench/peers/upstream; it, the clients and preforkd share the cores",
		},
		Raw: raw,
	}, nil
}

// proxied is one round.
func (l *lab) proxied(ctx context.Context) (*ioRun, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	behind := "127.0.0.1:" + strconv.Itoa(port)
	upstream, err := proc.Start(proc.Spec{
		Name: "upstream", Dir: l.root, Log: filepath.Join(l.dir, "logs", "upstream.log"),
		Args: []string{l.bin("upstream"), "-listen", behind, "-after", ioAfter.String()},
	})
	if err != nil {
		return nil, err
	}
	defer upstream.Stop(goodbye)
	if _, err := upstream.FirstLine(ctx); err != nil {
		return nil, err
	}
	s, err := l.stand(ctx, "io proxy", fmt.Sprintf("layers: {async: {max: %d}}\nroutes:\n  /wait: {layer: async, proxy: {url: \"http://%s\"}}\n", ioCrowd, behind),
		modelFile{"digits", filepath.Join(l.root, "models", "digits"), ""})
	if err != nil {
		return nil, err
	}
	defer s.end()
	r := &ioRun{}
	healthz := load.Options{Addr: s.address, Conns: 64, Rate: 40, Request: load.Get("/healthz"), Status: 200, Warmup: time.Second, Duration: of(&l.options, 5*time.Second, 2*time.Second)}
	if r.Alone, err = run1(ctx, healthz); err != nil {
		return nil, err
	}
	if r.Before, err = s.pss(); err != nil {
		return nil, err
	}
	seeing, stop := context.WithCancel(ctx)
	defer stop()
	seen := s.follow(seeing)
	type outcome struct {
		report *load.Report
		err    error
	}
	beside := make(chan outcome, 1)
	healthz.Warmup, healthz.Duration = 4*time.Second, of(&l.options, 8*time.Second, 3*time.Second)
	go func() { // awaited below
		report, err := run1(ctx, healthz)
		beside <- outcome{report, err}
	}()
	r.Load, err = l.loaded(ctx, s, load.Options{
		Addr: s.address, Conns: ioCrowd, Keepalive: true, Request: load.Get("/wait"),
		Warmup: 4 * time.Second, Duration: of(&l.options, 8*time.Second, 3*time.Second),
	})
	stop()
	r.Peak = <-seen
	o := <-beside
	if r.Health = o.report; err == nil {
		err = o.err
	}
	return r, err
}

// run1 runs one load.
func run1(ctx context.Context, o load.Options) (*load.Report, error) {
	g, err := load.New(o)
	if err != nil {
		return nil, err
	}
	return g.Run(ctx)
}

// pss is what all processes of s have.
func (s *standing) pss() (sum int64, err error) {
	tree, err := s.server.Tree()
	for _, pid := range tree {
		one, _ := proc.PSS(pid) // else it has ended meanwhile
		sum += one
	}
	return sum, err
}

func (p *ioProxies) column(number func(*ioRun) float64) (values []float64) {
	for _, r := range p.Runs {
		values = append(values, number(r))
	}
	return values
}

func (p *ioProxies) table() table {
	t := table{head: []string{"round", "requests", "failed", "p50 s", "p99 s", "longest s", "KB each", "server CPU µs/request", "/healthz p99 ms", "alone", "failed", "other processes"}}
	for _, r := range p.Runs {
		rep := r.Load.Report
		t.add(fmt.Sprint(r.Round+1), fmt.Sprint(rep.Requests), fmt.Sprint(rep.Failures.Total()), fmt.Sprintf("%.3f", rep.Latency.P50.Seconds()), fmt.Sprintf("%.3f", rep.Latency.P99.Seconds()),
			fmt.Sprintf("%.3f", rep.Latency.Max.Seconds()), digits(r.each()), digits(micros(r.Load.Server)), digits(micros(r.Health.Latency.P99)/1000), digits(micros(r.Alone.Latency.P99)/1000),
			fmt.Sprint(r.Health.Failures.Total()), fmt.Sprintf("%.0f %%", others(r.Load)))
	}
	return t
}

func (p *ioProxies) goals() []goal {
	return []goal{
		goal{Text: "failures", Exact: true, Values: p.column(func(r *ioRun) float64 {
			return float64(r.Load.Report.Failures.Total() + r.Health.Failures.Total())
		})}.judge(),
		goal{Text: fmt.Sprintf("the last of %d answers, warm", ioCrowd), Limit: ioLongest, AtMost: true, Unit: " s", Values: p.column(func(r *ioRun) float64 { return r.Load.Report.Latency.Max.Seconds() })}.judge(),
		goal{Text: "memory of each", Limit: ioMemory, AtMost: true, Unit: " KB", Values: p.column((*ioRun).each)}.judge(),
		goal{Text: "/healthz beside them: p99", Limit: ioHealthy, AtMost: true, Unit: " ms", Values: p.column(func(r *ioRun) float64 { return micros(r.Health.Latency.P99) / 1000 })}.judge(),
	}
}
