package main

import (
	"context"
	"fmt"
	"time"
)

// operateOthers reloads programs that are not ours, under preforkd and as their own
// supervisors do it, while keep-alive clients send requests.
func operateOthers(ctx context.Context, l *lab) (*result, error) {
	k := kind{name: "64 busy clients", conns: 64, others: of(&l.options, 25, 2), budget: 40 * time.Second}
	r := &result{Title: "Reloads of other programs under load"}
	t := table{head: []string{k.name, "reloads", "s each", "requests", "failed", "connections closed", "closed a reload", "how they failed"}}
	var raw []*storm
	for _, c := range []*contender{&uvicornOurs, &gunicorn, &nodeOurs, &pm2} {
		text, err := c.prepare(ctx, l)
		if err != nil {
			r.Notes = append(r.Notes, fmt.Sprintf("%s is left out: %v", c.name, err))
			continue
		}
		r.Notes = append(r.Notes, c.name+": "+text)
		s, err := l.storm(ctx, c, k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		raw = append(raw, s)
		lost := float64(s.Closed) / float64(max(len(s.Reloads), 1))
		l.say("%-22s  %d reloads, %d failed, %d connections closed", c.name, len(s.Reloads), s.Failed.Total(), s.Closed)
		t.add(c.name, fmt.Sprint(len(s.Reloads)), digits(s.each()), fmt.Sprint(s.Report.Requests), fmt.Sprint(s.Failed.Total()),
			fmt.Sprint(s.Closed), digits(lost), s.Failed.String())
		r.Notes = append(r.Notes, s.notes(k)...)
	}
	r.Tables, r.Raw = []table{t}, raw
	r.Notes = append(r.Notes,
		"preforkd cannot move connections of programs that are not its own worker: each closes those that it has when it leaves, in its own way",
		fmt.Sprintf("each is reloaded %d times, or as often as fits into %v; a connection that is closed in the middle of a request fails that, one that is closed between two fails none", k.others, k.budget),
		"under preforkd: "+quickReload)
	return r, nil
}
