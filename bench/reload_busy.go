package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"preforkd/internal/load"
)

// storm is many reloads of one contender under one load.
type storm struct {
	Contender string       `json:"contender"`
	Conns     int          `json:"conns"`
	Reloads   []reloaded   `json:"reloads"`
	Failed    load.Counts  `json:"failed"` // from the first reload on
	Early     load.Counts  `json:"early"`  // before that
	Closed    uint64       `json:"closed"` // connections that clients had to replace from the first reload on
	Report    *load.Report `json:"report"`
}

// kind is one load of the scenario.
type kind struct {
	name    string
	conns   int
	think   time.Duration
	reloads int           // of preforkd
	others  int           // of a peer, at most
	budget  time.Duration // after which a peer is not reloaded again
}

// quickReload keeps the waits of preforkd's reloads short, where it is their number that counts.
const quickReload = "reload: {bake: 200ms, trial: 200ms}"

// reloadBusy reloads again and again while keep-alive clients send requests.
func reloadBusy(ctx context.Context, l *lab) (*result, error) {
	chosen, notes := l.chosenContenders(ctx)
	kinds := []kind{
		{"64 busy clients", 64, 0, of(&l.options, 50, 3), of(&l.options, 25, 2), 20 * time.Second},
		{"2,000 connections", 2000, 2 * time.Second, of(&l.options, 40, 2), of(&l.options, 25, 1), 12 * time.Second},
	}
	r := &result{Title: "Reloads under load: what clients notice"}
	var raw []*storm
	for _, k := range kinds {
		t := table{head: []string{k.name, "reloads", "s each", "requests", "failed", "connections closed", "dials", "how they failed"}}
		for _, c := range chosen {
			s, err := l.storm(ctx, c, k)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", c.name, k.name, err)
			}
			raw = append(raw, s)
			l.say("%s: %-8s  %d reloads, %d failed, %d connections closed", k.name, c.name, len(s.Reloads), s.Failed.Total(), s.Closed)
			t.add(c.name, fmt.Sprint(len(s.Reloads)), digits(s.each()), fmt.Sprint(s.Report.Requests), fmt.Sprint(s.Failed.Total()),
				fmt.Sprint(s.Closed), fmt.Sprint(s.Report.Dials), s.Failed.String())
			if c == &ourselves {
				r.Goals = append(r.Goals, s.goals(k)...)
			}
			notes = append(notes, s.notes(k)...)
		}
		r.Tables = append(r.Tables, t)
	}
	r.Raw = raw
	r.Notes = append(notes,
		"64 clients send their next request as soon as they have an answer; each of 2,000 waits 2 s before it",
		"peers are reloaded 25 times, or as often as fits into 20 s and 12 s",
		"preforkd: "+quickReload+"; its defaults, 2s and 1s, only make a reload longer")
	return r, nil
}

func (l *lab) storm(ctx context.Context, c *contender, k kind) (*storm, error) {
	s := &stage{c: c, settings: quickReload}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	run := &storm{Contender: c.name, Conns: k.conns}
	var before load.Progress
	var err error
	run.Report, err = s.under(ctx, load.Options{Conns: k.conns, Think: k.think}, func(g *load.Generator) error {
		before = g.Progress()
		n, budget := k.others, k.budget
		if c == &ourselves {
			n, budget = k.reloads, time.Hour
		}
		for begun := time.Now(); len(run.Reloads) < n && time.Since(begun) < budget; {
			r, err := s.reload(ctx, fine, 30*time.Second)
			if err != nil {
				return err
			}
			run.Reloads = append(run.Reloads, r)
			if err := rest(ctx, c.pause); err != nil {
				return err
			}
		}
		return rest(ctx, k.think+time.Second) // each client notices what has become of its connection
	})
	if err != nil {
		return nil, err
	}
	run.Early = before.Failures
	for i, n := range run.Report.Failures {
		run.Failed[i] = n - before.Failures[i]
	}
	run.Closed = run.Report.Dials - before.Dials
	return run, nil
}

// each returns the median time of a reload in seconds.
func (s *storm) each() float64 {
	var took []float64
	for _, r := range s.Reloads {
		took = append(took, r.Took.Seconds())
	}
	return median(took)
}

func (s *storm) goals(k kind) []goal {
	count := func(text string, limit, value uint64) goal {
		return goal{Text: fmt.Sprintf("%d reloads, %s: %s", len(s.Reloads), k.name, text), Exact: true, Limit: float64(limit), Values: []float64{float64(value)}}.judge()
	}
	wrong := slices.DeleteFunc(slices.Clone(s.Reloads), func(r reloaded) bool { return r.Replaced })
	return []goal{
		count("failed requests", 0, s.Failed.Total()), count("connections closed", 0, s.Closed),
		count("dials", uint64(k.conns), s.Report.Dials), count("reloads that did not succeed", 0, uint64(len(wrong))),
	}
}

func (s *storm) notes(k kind) (notes []string) {
	if s.Early.Total() > 0 {
		notes = append(notes, fmt.Sprintf("%s, %s: before the first reload failed %v, which are not counted", s.Contender, k.name, s.Early))
	}
	for i, r := range s.Reloads {
		if !r.Replaced {
			notes = append(notes, fmt.Sprintf("%s, %s: reload %d did not end within %v: exit status %d, %q", s.Contender, k.name, i+1, r.Took.Round(time.Second), r.Exit, r.Said))
		}
	}
	return notes
}
