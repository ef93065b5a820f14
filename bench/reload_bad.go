package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"preforkd/internal/load"
)

// mishap is a reload into a version that does not work.
type mishap struct {
	Contender string       `json:"contender"`
	Version   version      `json:"version"`
	Reload    reloaded     `json:"reload"`
	Failed    load.Counts  `json:"failed"` // from the reload on
	Closed    uint64       `json:"closed"`
	Inside    int          `json:"inside"` // connections of preforkd's canary when it was struck
	Workers   int          `json:"workers"`
	Serves    string       `json:"serves"` // at the end: yes, or what a new client gets
	Report    *load.Report `json:"-"`
}

const (
	badConns = 64
	badThink = 5 * time.Millisecond
	// badWait is how long a peer is given, which says nothing of its own, to replace its
	// workers or not to. gunicorn ends a worker that hangs at boot after 30 s.
	badWait = 5 * time.Second
)

// reloadBad reloads into versions that do not work, while keep-alive clients send
// requests.
func reloadBad(ctx context.Context, l *lab) (*result, error) {
	chosen, notes := l.chosenContenders(ctx)
	r := &result{Title: "Reloads into versions that do not work"}
	t := table{head: []string{"version", "server", "command", "failed", "connections closed", "serves afterwards", "how they failed"}}
	var raw []*mishap
	for _, v := range []version{failing, hanging, hangsInTest, crashesInTest, crashing} {
		for _, c := range chosen {
			if !can(c, v) {
				continue
			}
			m, err := l.mishap(ctx, c, v)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", c.name, v, err)
			}
			l.say("%-22s %-8s  %s, %d failed, %d closed, serves: %s", v, c.name, m.command(), m.Failed.Total(), m.Closed, m.Serves)
			raw = append(raw, m)
			t.add(titles[v], c.name, m.command(), fmt.Sprint(m.Failed.Total()), fmt.Sprint(m.Closed), m.Serves, m.Failed.String())
			if c == &ourselves {
				r.Goals = append(r.Goals, m.goals()...)
			}
			if m.Reload.Said != "" {
				notes = append(notes, fmt.Sprintf("%s, %s, said: %.200s", c.name, titles[v], m.Reload.Said))
			}
		}
	}
	r.Tables, r.Raw = []table{t}, raw
	r.Notes = append(notes,
		fmt.Sprintf("%d keep-alive clients, each %v after an answer; a peer is watched for %v after the reload was asked for", badConns, badThink, badWait),
		"command: exit status of the command that asks for the reload; a signal or a touched file tells nothing",
		"crashes while it serves: preforkd's canary has a segmentation fault in its trial, a peer's workers half a second after each has booted",
		"nginx has no application: its version that fails is a configuration with an error")
	return r, nil
}

var titles = map[version]string{
	failing: "fails at boot", hanging: "never becomes ready", hangsInTest: "hangs in the self-test",
	crashesInTest: "crashes in the self-test", crashing: "crashes while it serves",
}

func can(c *contender, v version) bool {
	for _, w := range c.versions {
		if w == v {
			return true
		}
	}
	return false
}

func (l *lab) mishap(ctx context.Context, c *contender, v version) (*mishap, error) {
	s := &stage{c: c, settings: "reload: {bake: 500ms}"}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	m := &mishap{Contender: c.name, Version: v}
	var before load.Progress
	var err error
	m.Report, err = s.under(ctx, load.Options{Conns: badConns, Think: badThink, Timeout: 5 * time.Second}, func(g *load.Generator) error {
		if err := rest(ctx, time.Second); err != nil {
			return err
		}
		before = g.Progress()
		asked := time.Now()
		m.Reload, err = s.reload(ctx, v, badWait)
		if err == nil {
			err = rest(ctx, max(time.Second, badWait-time.Since(asked)))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, n := range m.Report.Failures {
		m.Failed[i] = n - before.Failures[i]
	}
	m.Closed = m.Report.Dials - before.Dials
	m.Serves = "yes"
	if err := s.answers(); err != nil {
		m.Serves = "no"
	}
	if alive, err := s.server.Tree(); err == nil && len(alive) == 0 {
		m.Serves = "no: it has ended"
	}
	pids, err := s.workers()
	m.Workers, m.Inside = len(pids), s.inside
	return m, errors.Join(err, ctx.Err())
}

// command says what whoever asked for the reload was told.
func (m *mishap) command() string {
	if m.Reload.Exit < 0 {
		return "-"
	}
	return fmt.Sprintf("exit %d", m.Reload.Exit)
}

func (m *mishap) goals() []goal {
	title := titles[m.Version] + ": "
	one := func(text string, limit, value float64) goal {
		return goal{Text: title + text, AtMost: true, Limit: limit, Values: []float64{value}}.judge()
	}
	exit := goal{Text: title + "exit status", Exact: true, Limit: 4, Values: []float64{float64(m.Reload.Exit)}}.judge()
	lost := float64(m.Failed.Total())
	if m.Version == crashing {
		return []goal{exit, one("failed requests; limit: connections inside the canary", float64(m.Inside), lost)}
	}
	return []goal{exit, one("failed requests", 0, lost), one("connections closed", 0, float64(m.Closed))}
}
