package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"preforkd/internal/load"
)

// tailRun is one run at half the capacity with some reloads in it.
type tailRun struct {
	Contender string      `json:"contender"`
	Round     int         `json:"round"`
	Capacity  float64     `json:"capacity"` // answers a second in a closed loop
	Rate      float64     `json:"rate"`
	Reloads   []span      `json:"reloads"`
	Quiet     float64     `json:"quiet_p99_ms"`  // of requests that met no reload
	During    float64     `json:"reload_p99_ms"` // of the others
	Phases    []phase     `json:"phases"`        // of preforkd's reloads
	Failed    load.Counts `json:"failed"`
	Closed    uint64      `json:"closed"`
}

// phase is one of a reload's phases in all reloads of a run.
type phase struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"` // of the time of the reloads
	P99   float64 `json:"p99_ms"`
	spans []span
}

func (r *tailRun) ratio() float64 { return r.During / r.Quiet }

// idling is the control: no reload, but a process beside the service that keeps one core
// busy as long as a reload lasts, at the same priority as workers. What it does to p99
// any work on this machine does.
const idling = "preforkd, no reload, another process busy"

// reloadTail compares the p99 of requests that met a reload with that of the others, at
// half of what the contender can do.
func reloadTail(ctx context.Context, l *lab) (*result, error) {
	chosen, notes := l.chosenContenders(ctx)
	rounds := l.times(3)
	control := slices.Contains(chosen, &ourselves)
	if _, err := exec.LookPath("chrt"); err != nil && control {
		control = false
		notes = append(notes, idling+" is left out: no chrt; try: apt-get install util-linux")
	}
	var raw []*tailRun
	for round := range rounds {
		for _, c := range chosen {
			if round > 0 && c != &ourselves {
				continue
			}
			for _, name := range []string{c.name, idling} {
				if name == idling && (c != &ourselves || !control) {
					continue
				}
				r, err := l.tail(ctx, c, name, round)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				l.say("round %d of %d: %-8s  %.0f of %.0f requests/s, p99 %.2f ms quiet, %.2f ms in reloads, %d failed", round+1, rounds, name,
					r.Rate, r.Capacity, r.Quiet, r.During, r.Failed.Total())
				raw = append(raw, r)
			}
		}
	}
	return tailResult(raw, notes), nil
}

func tailResult(raw []*tailRun, notes []string) *result {
	t := table{head: []string{"at half load", "requests/s", "p99 ms, quiet", "in reloads", "ratio", "min–max", "failed", "closed"}}
	phases := table{head: []string{"preforkd's phase", "share of the reload", "p99 ms", "× quiet"}}
	r := &result{Title: "p99 during reloads at half the capacity", Raw: raw}
	var names []string
	for _, run := range raw {
		if !slices.Contains(names, run.Contender) {
			names = append(names, run.Contender)
		}
	}
	for _, name := range names {
		column := func(number func(*tailRun) float64) (values []float64) {
			for _, run := range raw {
				if run.Contender == name {
					values = append(values, number(run))
				}
			}
			return values
		}
		of := func(number func(*tailRun) float64) string { return digits(median(column(number))) }
		g := goal{Text: "p99 in reloads, × steady: " + name, AtMost: true, Limit: 3, Unit: " ×", Values: column((*tailRun).ratio)}.judge()
		row := g.row()
		t.add(name, of(func(r *tailRun) float64 { return r.Rate }), of(func(r *tailRun) float64 { return r.Quiet }),
			of(func(r *tailRun) float64 { return r.During }), row[2], row[3],
			of(func(r *tailRun) float64 { return float64(r.Failed.Total()) }), of(func(r *tailRun) float64 { return float64(r.Closed) }))
		if name != ours {
			continue
		}
		r.Goals = append(r.Goals, g)
		for i, p := range raw[slices.IndexFunc(raw, func(r *tailRun) bool { return r.Contender == ours })].Phases {
			at := func(number func(phase) float64) float64 {
				return median(column(func(r *tailRun) float64 { return number(r.Phases[i]) }))
			}
			phases.add(p.Name, fmt.Sprintf("%.0f %%", 100*at(func(p phase) float64 { return p.Share })), digits(at(func(p phase) float64 { return p.P99 })),
				digits(median(column(func(r *tailRun) float64 { return r.Phases[i].P99 / r.Quiet }))))
		}
	}
	r.Tables = []table{t, phases}
	r.Notes = append(notes,
		fmt.Sprintf("half of what %d clients get in a closed loop, as %d connections at fixed times; latency counts from the time at which a request was due", tailClients, tailConns),
		"a request belongs to a reload if any moment from when it was due to its answer lies in it; quiet are all others of the same run",
		"preforkd with its default bake of 2 s and trial of 1 s")
	return r
}

const (
	tailClients = 16
	tailConns   = 64
)

// tailPhases are those of preforkd's reload that last.
var tailPhases = []string{"canary", "self-test", "bake", "last self-test", "trial", "verdict", "rest", "drain"}

func (l *lab) tail(ctx context.Context, c *contender, name string, round int) (*tailRun, error) {
	s := &stage{c: c}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	r := &tailRun{Contender: name, Round: round}
	closed, err := load.Run(ctx, load.Options{
		Addr: s.address(), Request: c.request, Keepalive: true, Conns: tailClients,
		Warmup: of(&l.options, time.Second, 200*time.Millisecond), Duration: of(&l.options, 2*time.Second, 500*time.Millisecond),
	})
	if err != nil {
		return nil, err
	}
	r.Capacity = closed.Throughput()
	if r.Rate = r.Capacity / 2; r.Rate < 1 {
		return nil, fmt.Errorf("it answers %.1f requests a second", r.Capacity)
	}
	var moments []moment
	s.onProgress = func(line string) {
		name, _, _ := strings.Cut(line, ": ")
		moments = append(moments, moment{name, time.Now()})
	}
	var before load.Progress
	const warm = time.Second
	report, err := s.under(ctx, load.Options{
		Conns: tailConns, Rate: r.Rate, Warmup: warm, Timeout: 20 * time.Second, Trace: true,
	}, func(g *load.Generator) error {
		before = g.Progress()
		for range of(&l.options, 2, 1) {
			if err := rest(ctx, of(&l.options, 3*time.Second, time.Second)); err != nil {
				return err
			}
			moments = append(moments, moment{begins, time.Now()})
			if err := s.disturb(ctx, name); err != nil {
				return err
			}
			moments = append(moments, moment{ends, time.Now()})
		}
		return rest(ctx, of(&l.options, 3*time.Second, time.Second))
	})
	if err != nil {
		return nil, err
	}
	for i, n := range before.Failures {
		r.Failed[i] = report.Failures[i] + report.Warmup.Failures[i] - n
	}
	r.Closed = report.Dials - before.Dials
	r.measure(report, moments)
	return r, nil
}

// disturb reloads the contender, or does what the control does instead.
func (s *stage) disturb(ctx context.Context, name string) error {
	if name != idling {
		r, err := s.reload(ctx, fine, 30*time.Second)
		if err == nil && r.Exit > 0 {
			err = fmt.Errorf("the reload ended with status %d: %s", r.Exit, r.Said)
		}
		return err
	}
	const likeOurs = 3500 * time.Millisecond // bake, trial and the boot of two workers
	limited, cancel := context.WithTimeout(ctx, likeOurs)
	defer cancel()
	_ = exec.CommandContext(limited, "chrt", "--batch", "0", "sh", "-c", "while :; do :; done").Run() // ends by cancel
	return ctx.Err()
}

// moment is when something began: a reload, one of its phases, or what follows it.
type moment struct {
	name string
	at   time.Time
}

const begins, ends = "reload", ""

// measure fills in what follows from the report.
func (r *tailRun) measure(report *load.Report, moments []moment) {
	spans := map[string][]span{}
	var all time.Duration
	for i, m := range moments {
		if m.name == begins {
			end := slices.IndexFunc(moments[i:], func(m moment) bool { return m.name == ends }) + i
			s := span{m.at.Sub(report.Start), moments[end].at.Sub(report.Start)}
			r.Reloads, all = append(r.Reloads, s), all+s.long()
		}
		if i+1 < len(moments) && slices.Contains(tailPhases, m.name) {
			spans[m.name] = append(spans[m.name], span{m.at.Sub(report.Start), moments[i+1].at.Sub(report.Start)})
		}
	}
	p99 := func(values []time.Duration) float64 { return micros(quantile(values, 0.99)) / 1000 }
	inside, outside := split(report.Trace, r.Reloads)
	r.During, r.Quiet = p99(inside), p99(outside)
	if len(spans) == 0 {
		return
	}
	for _, name := range tailPhases {
		p := phase{Name: name, spans: spans[name]}
		for _, s := range p.spans {
			p.Share += s.long().Seconds() / all.Seconds()
		}
		inside, _ := split(report.Trace, p.spans)
		p.P99 = p99(inside)
		r.Phases = append(r.Phases, p)
	}
}
