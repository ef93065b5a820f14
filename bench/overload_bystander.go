package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"preforkd/internal/load"
)

const (
	bystanderRate  = 40.0 // requests a second
	bystanderLimit = 5 * time.Second
	bystanderP99   = 50.0 // ms
)

// looked is what a bystander saw of one service under one attack.
type looked struct {
	Service string `json:"service"`
	Attack  string `json:"attack"`
	Sent    string `json:"sent"` // by whoever attacked
	Peak    peak   `json:"peak"`
	Load    *visit `json:"load"`
}

// bystanders is the raw data of overload-bystander.
type bystanders struct {
	Rows []*looked `json:"rows"`
}

// overloadBystander has somebody ask for /healthz on new connections while others attack.
func overloadBystander(ctx context.Context, l *lab) (*result, error) {
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	notes := []string{"preforkd: " + version}
	services := []string{ours, fastPeer}
	if peers, err := l.peerVersions(ctx); err != nil {
		services, notes = services[:1], append(notes, fmt.Sprintf("%s is left out: %v", fastPeer, err))
	} else {
		notes = append(notes, "peer: "+peers)
	}
	raw := &bystanders{}
	for _, a := range attacks {
		if a.needs != nil {
			if err := a.needs(); err != nil {
				notes = append(notes, fmt.Sprintf("%s is left out: %v", a.name, err))
				continue
			}
		}
		for _, service := range services {
			w, err := l.bystander(ctx, service, &a)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", service, a.name, err)
			}
			r := w.Load.Report
			l.say("%s, %s: %d of %d failed (%v), p50 %.1f ms, p99 %.1f ms, outage %v, %d connections, %d MB; %s; others %.0f %%", service, a.name, r.Failures.Total(),
				r.Requests, r.Failures, micros(r.Latency.P50)/1000, micros(r.Latency.P99)/1000, r.Gap.Round(time.Millisecond), w.Peak.Conns, w.Peak.PSS>>20, w.Sent, others(w.Load))
			raw.Rows = append(raw.Rows, w)
		}
	}
	return &result{
		Title:  fmt.Sprintf("A bystander who asks for /healthz %v times a second, on a new connection each time", bystanderRate),
		Tables: []table{raw.table()},
		Goals:  raw.goals(),
		Notes: append(notes,
			fmt.Sprintf("a failure is anything but status 200 within %v; the outage is the longest time in which no answer came (the requests are %v apart)", bystanderLimit, time.Second/time.Duration(bystanderRate)),
			"memory: the most that all processes of the service had at once (PSS), looked at 5 times a second; connections: the most at once, the bystander's among them",
			"the attackers are on the same two cores; 2 workers, preforkd's default settings but for http.max_body where 20 MB are sent"),
		Raw: raw,
	}, nil
}

// bystander measures one service under one attack.
func (l *lab) bystander(ctx context.Context, service string, a *attack) (w *looked, err error) {
	t := target{ours: service == ours, infer: "/infer", predict: "/predict", health: "/healthz"}
	var s *standing
	if t.ours {
		t.infer = inferPath(batchedModel)
		s, err = l.stand(ctx, ours, "predict: {model: digits}\n"+a.settings, modelFile{batchedModel, filepath.Join(l.root, "models", batchedModel), ""})
	} else {
		s, err = l.standPeer(ctx, service, 0)
	}
	if err != nil {
		return nil, err
	}
	defer s.end()
	t.address = s.address
	w = &looked{Service: service, Attack: a.name}
	attacking, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		sent string
		err  error
	}
	attacked := make(chan outcome, 1)
	lasts := of(&l.options, 20*time.Second, 6*time.Second)
	go func() { // ends with attacking; awaited below
		sent, err := a.run(attacking, l, t, lasts+10*time.Second)
		attacked <- outcome{sent, err}
	}()
	seen := s.follow(attacking)
	w.Load, err = l.lookOn(ctx, s, load.Options{
		Addr: s.address, Conns: 256, Rate: bystanderRate, Request: load.Get(t.health), Timeout: bystanderLimit, Status: 200,
		Warmup: of(&l.options, 5*time.Second, 3*time.Second), Duration: lasts,
	})
	stop()
	o := <-attacked
	w.Sent, w.Peak = o.sent, <-seen
	if err == nil {
		err = o.err
	}
	if err == nil && w.Peak.Conns < a.conns {
		err = fmt.Errorf("the attack was to have %d connections at once and had %d at most", a.conns, w.Peak.Conns)
	}
	return w, err
}

// lookOn runs the bystander, whose failures are no error.
func (l *lab) lookOn(ctx context.Context, s *standing, o load.Options) (*visit, error) {
	g, err := load.New(o)
	if err != nil {
		return nil, err
	}
	v := &visit{Peer: s.name, Main: s.server.PID()}
	return v, v.measure(ctx, g, s.server)
}

func (b *bystanders) table() table {
	t := table{head: []string{"attack", "service", "requests", "failed", "p50 ms", "p99 ms", "longest outage ms", "connections", "memory MB", "what the attackers got"}}
	for _, w := range b.Rows {
		r := w.Load.Report
		t.add(w.Attack, w.Service, fmt.Sprint(r.Requests), fmt.Sprint(r.Failures.Total()), digits(micros(r.Latency.P50)/1000), digits(micros(r.Latency.P99)/1000),
			digits(micros(r.Gap)/1000), fmt.Sprint(w.Peak.Conns), fmt.Sprint(w.Peak.PSS>>20), w.Sent)
	}
	return t
}

func (b *bystanders) goals() (all []goal) {
	for _, w := range b.Rows {
		if w.Service != ours {
			continue
		}
		r := w.Load.Report
		all = append(all,
			goal{Text: w.Attack + ": failures", Exact: true, Values: []float64{float64(r.Failures.Total())}}.judge(),
			goal{Text: w.Attack + ": p99", Limit: bystanderP99, AtMost: true, Unit: " ms", Values: []float64{micros(r.Latency.P99) / 1000}}.judge())
		if w.refuses() {
			all = append(all, goal{Text: w.Attack + ": answers other than 413", Exact: true, Values: []float64{float64(w.strays())}}.judge())
		}
	}
	return all
}

func (w *looked) refuses() bool { return w.Attack == largeAttack }

// strays counts the answers to too large bodies that do not refuse them.
func (w *looked) strays() (n int) {
	for part := range strings.SplitSeq(w.Sent, ", ") {
		var count, status int
		if _, err := fmt.Sscanf(part, "%d × %d", &count, &status); err == nil && status != 413 {
			n += count
		}
	}
	return n
}
