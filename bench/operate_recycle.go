package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
)

// recycled is the scenario's raw data.
type recycled struct {
	Workers  int           `json:"workers"`
	Replaced int           `json:"replaced"`
	Lasted   time.Duration `json:"lasted_ns"`
	Report   *load.Report  `json:"report"`
}

// recycleAfter is how many requests a worker serves.
const recycleAfter = 200

// operateRecycle has eight workers replaced every 200 requests, under busy keep-alive clients.
func operateRecycle(ctx context.Context, l *lab) (*result, error) {
	version, err := ourselves.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	s := &stage{c: &ourselves, settings: fmt.Sprintf("%s\nrecycle: {requests: %d}", quickReload, recycleAfter)}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	if _, err := s.operate(ctx, "scale", strconv.Itoa(scaleMany)); err != nil {
		return nil, err
	}
	raw := recycled{Workers: scaleMany, Lasted: of(&l.options, time.Minute, 5*time.Second)}
	raw.Report, err = s.under(ctx, load.Options{Conns: scaleConns}, func(*load.Generator) error {
		before, err := s.restarts(ctx)
		if err == nil {
			err = rest(ctx, raw.Lasted)
		}
		if err != nil {
			return err
		}
		after, err := s.restarts(ctx)
		raw.Replaced = after - before
		return err
	})
	if err != nil {
		return nil, err
	}
	r := raw.Report
	l.say("%d workers replaced: %d requests, %d failed, %d dials", raw.Replaced, r.Requests, r.Failures.Total(), r.Dials)
	t := table{head: []string{"64 busy clients", "workers replaced", "requests", "failed", "connections closed", "dials", "how they failed"}}
	t.add("preforkd", fmt.Sprint(raw.Replaced), fmt.Sprint(r.Requests), fmt.Sprint(r.Failures.Total()), fmt.Sprint(closes(r)), fmt.Sprint(r.Dials), r.Failures.String())
	return &result{
		Title:  "Workers recycled under load",
		Tables: []table{t},
		Goals: append([]goal{goal{Text: "workers replaced", Limit: 1, Values: []float64{float64(raw.Replaced)}}.judge()},
			unnoticed(fmt.Sprintf("%d workers replaced", raw.Replaced), r, scaleConns)...),
		Notes: []string{
			"preforkd: " + version,
			fmt.Sprintf("for %v, %d workers, recycle.requests %d: far fewer than each answers until its turn comes, as one is replaced at a time, its successor ready first",
				raw.Lasted, scaleMany, recycleAfter),
		},
		Raw: raw,
	}, nil
}

// restarts returns how many workers were started in place of another.
func (s *stage) restarts(ctx context.Context) (n int, err error) {
	client, err := admin.Dial(s.path("admin.sock"))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range st.Pools {
		for _, slot := range p.Slots {
			n += slot.Restarts
		}
	}
	return n, nil
}
