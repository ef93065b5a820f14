package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
)

// operated is one command to preforkd, or how often it was given.
type operated struct {
	Command string          `json:"command"`
	Took    []time.Duration `json:"took_ns"`
}

// operate gives preforkd a command, which must succeed.
func (s *stage) operate(ctx context.Context, args ...string) (took time.Duration, err error) {
	limited, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	begun := time.Now()
	said, exit, err := commandOurs(limited, s, args...)
	took = time.Since(begun)
	if err == nil && exit != 0 {
		err = fmt.Errorf("exit status %d: %s", exit, said)
	}
	if err != nil {
		return took, fmt.Errorf("preforkd %s: %w", strings.Join(args, " "), err)
	}
	return took, nil
}

// seconds returns durations in s.
func seconds(all []time.Duration) (s []float64) {
	for _, d := range all {
		s = append(s, d.Seconds())
	}
	return s
}

// scaled is the scenario's raw data.
type scaled struct {
	Cycles int          `json:"cycles"`
	Down   operated     `json:"down"`
	Up     operated     `json:"up"`
	Report *load.Report `json:"report"`
}

const (
	scaleConns          = 64
	scaleFew, scaleMany = 2, 8
)

// operateScale scales 8 → 2 → 8, again and again, under busy keep-alive clients.
func operateScale(ctx context.Context, l *lab) (*result, error) {
	version, err := ourselves.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	s := &stage{c: &ourselves, settings: quickReload}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	if _, err := s.operate(ctx, "scale", strconv.Itoa(scaleMany)); err != nil {
		return nil, err
	}
	raw := scaled{Down: operated{Command: fmt.Sprintf("scale %d", scaleFew)}, Up: operated{Command: fmt.Sprintf("scale %d", scaleMany)}}
	lasts := of(&l.options, time.Minute, 3*time.Second)
	raw.Report, err = s.under(ctx, load.Options{Conns: scaleConns}, func(*load.Generator) error {
		for begun := time.Now(); time.Since(begun) < lasts; raw.Cycles++ {
			for _, step := range []struct {
				to   int
				into *operated
			}{{scaleFew, &raw.Down}, {scaleMany, &raw.Up}} {
				took, err := s.operate(ctx, "scale", strconv.Itoa(step.to))
				if err != nil {
					return err
				}
				step.into.Took = append(step.into.Took, took)
			}
		}
		return rest(ctx, time.Second) // each client notices what has become of its connection
	})
	if err != nil {
		return nil, err
	}
	r := raw.Report
	l.say("%d times 8 → 2 → 8: %d requests, %d failed, %d dials", raw.Cycles, r.Requests, r.Failures.Total(), r.Dials)
	t := table{head: []string{"command", "times", "s each", "min–max"}}
	for _, o := range []operated{raw.Down, raw.Up} {
		each := seconds(o.Took)
		t.add(o.Command, fmt.Sprint(len(each)), digits(median(each)), spread(each))
	}
	sums := table{head: []string{"64 busy clients", "requests", "failed", "connections closed", "dials", "how they failed"}}
	sums.add("preforkd", fmt.Sprint(r.Requests), fmt.Sprint(r.Failures.Total()), fmt.Sprint(closes(r)), fmt.Sprint(r.Dials), r.Failures.String())
	return &result{
		Title:  "Scale 8 → 2 → 8 under load",
		Tables: []table{sums, t},
		Goals:  unnoticed(fmt.Sprintf("%d times 8 → 2 → 8", raw.Cycles), r, scaleConns),
		Notes:  []string{"preforkd: " + version, fmt.Sprintf("for %v, without a pause between two commands; a command ends when the pool has its size", lasts)},
		Raw:    raw,
	}, nil
}

// closes counts the connections that clients had to replace.
func closes(r *load.Report) uint64 { return r.Closes.Announced + r.Closes.Idle + r.Closes.Late }

// unnoticed are the goals of an operation that no client may notice.
func unnoticed(what string, r *load.Report, conns int) []goal {
	count := func(text string, limit, value uint64) goal {
		return goal{Text: what + ": " + text, Exact: true, Limit: float64(limit), Values: []float64{float64(value)}}.judge()
	}
	return []goal{
		count("failed requests", 0, r.Failures.Total()), count("connections closed", 0, closes(r)), count("dials", uint64(conns), r.Dials),
	}
}

// wayBack is a reload and the rollback that followed it.
type wayBack struct {
	Reload   time.Duration `json:"reload_ns"`
	Rollback time.Duration `json:"rollback_ns"`
}

// operateRollback takes turns: a reload to other content of a model, and a rollback from it.
func operateRollback(ctx context.Context, l *lab) (*result, error) {
	version, err := ourselves.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	const conns = 16
	// The waits are the same for both; without them it is the work that is compared.
	s := &stage{c: &ourselves, settings: "reload: {bake: 0s, trial: 0s}"}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	rounds := l.times(15)
	var raw []wayBack
	report, err := s.under(ctx, load.Options{Conns: conns, Think: 20 * time.Millisecond}, func(*load.Generator) error {
		for round := range rounds + 1 {
			// A file beside the model: other content, of the same size, and the same work.
			if err := os.WriteFile(s.path("models/digits/1/note"), fmt.Appendf(nil, "%8d", round), 0o644); err != nil {
				return err
			}
			var w wayBack
			var err error
			if w.Reload, err = s.operate(ctx, "reload"); err != nil {
				return err
			}
			if w.Rollback, err = s.operate(ctx, "rollback"); err != nil {
				return err
			}
			if round > 0 { // the first ones read programs that are not in memory yet
				raw = append(raw, w)
				l.say("round %d of %d: reload %.3f s, rollback %.3f s", round, rounds, w.Reload.Seconds(), w.Rollback.Seconds())
			}
		}
		return rest(ctx, time.Second)
	})
	if err != nil {
		return nil, err
	}
	var there, back []float64
	for _, w := range raw {
		there, back = append(there, w.Reload.Seconds()), append(back, w.Rollback.Seconds())
	}
	t := table{head: []string{"command", "times", "median s", "min–max"}}
	t.add("reload", fmt.Sprint(len(there)), digits(median(there)), spread(there))
	t.add("rollback", fmt.Sprint(len(back)), digits(median(back)), spread(back))
	return &result{
		Title:  "Rollback against reload",
		Tables: []table{t},
		Goals: append([]goal{goal{Text: "time of a rollback / time of the reload before it", AtMost: true, Limit: 1.1, Values: ratios(back, there)}.judge()},
			unnoticed(fmt.Sprintf("%d reloads and as many rollbacks", rounds+1), report, conns)...),
		Notes: []string{
			"preforkd: " + version,
			"in turns, a reload to other content of a model and the rollback from it; bake and trial are 0, as they are the same for both",
			fmt.Sprintf("%d keep-alive clients, 20 ms between answer and request", conns),
		},
		Raw: raw,
	}, nil
}

// happened returns the events of the service so far.
func (s *stage) happened(ctx context.Context) (all []admin.Event, err error) {
	client, err := admin.Dial(s.path("admin.sock"))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	err = client.Events(ctx, 0, false, func(e admin.Event) error {
		all = append(all, e)
		return nil
	})
	return all, errors.Join(err, ctx.Err())
}
