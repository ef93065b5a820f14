package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/metrics"
	"preforkd/internal/supervisor/slot"
)

// suspect is the call into the engine that a worker was in: the row of its model, nil for
// none, and the digest of its request.
type suspect struct {
	model   *scoreboard.Model
	key     scoreboard.ModelKey
	request uint64
}

// suspect returns the call that w is in, or died in.
func (s *Supervisor) suspect(w *worker) (c suspect) {
	number, request := w.row.Entered()
	model := s.shared.board.Model(number)
	if model == nil {
		return c
	}
	key, ok := model.Key()
	if !ok {
		return c
	}
	return suspect{model, key, request}
}

// keys are those of c in a record of the log.
func (c suspect) keys() []any {
	if c.model == nil {
		return nil
	}
	return []any{"model", c.key.Name, "version", c.key.Version, "request", scoreboard.RequestText(c.request)}
}

// in returns e with the model and the request of c.
func (c suspect) in(e admin.Event) admin.Event {
	if c.model != nil {
		e.Model, e.Version, e.Request = c.key.Name, c.key.Version, scoreboard.RequestText(c.request)
	}
	return e
}

// blame puts the end of w down to the model that it was running, if it is that model's
// doing, and has a model that has ended too many workers quarantined at once. It returns
// the model and the request, without a model if there is none to blame, and the quarantine
// that begins, if one does. The row of w is still its own.
func (s *Supervisor) blame(w *worker) (suspect, *scoreboard.Quarantine) {
	c := w.suspect // what it was in when we gave it up: it may have come out of that since
	if c.model == nil {
		c = s.suspect(w)
	}
	end := slot.End{Reason: w.reason}
	if w.exit.Status.Signaled() {
		end.Signal = int(w.exit.Status.Signal())
	} else {
		end.Status = w.exit.Status.ExitStatus()
	}
	if c.model == nil || !end.OfCall() {
		return suspect{}, nil
	}
	c.model.Blame(c.request)
	if c.model.Quarantined() { // the request was under way when that began
		return c, nil
	}
	deaths := s.deaths[c.model]
	if deaths == nil {
		deaths = &slot.Deaths{}
		s.deaths[c.model] = deaths
	}
	policy := w.slot.pool.policy
	n, enough := deaths.Died(s.now(), policy)
	if !enough {
		return c, nil
	}
	q := scoreboard.Quarantine{Count: n, Window: policy.CrashWindow, Cause: w.cause(), Request: c.request, Since: time.Now()}
	c.model.Quarantine(q)
	return c, &q
}

// cause is how w ended, with the words of the run time that has met a fault in native code.
func (w *worker) cause() string {
	text := w.reason.String() + ": " + w.exit.String()
	if w.tail.fault != "" {
		text += ", " + w.tail.fault
	}
	return text
}

// tellQuarantine tells operators that workers refuse the requests of a model from now on.
func (s *Supervisor) tellQuarantine(w *worker, c suspect, q scoreboard.Quarantine) {
	s.log.Error("model quarantined", append(c.keys(), "workers", q.Count, "window", q.Window, "cause", q.Cause,
		"try", "preforkd models release "+c.key.Name+", or reload another one")...)
	e := c.in(admin.Event{Kind: "quarantine", Text: q.Describe(c.key.Name, c.key.Version), Generation: w.slot.pool.gen.number})
	e.Count = uint64(q.Count)
	s.emit(e)
}

// claimModels gives each model of a generation to come its row. One that has none, as
// there is no room, is served all the same.
func (s *Supervisor) claimModels(models []ipc.ModelFile) {
	for i := range models {
		m := &models[i]
		row, err := s.shared.board.ClaimModel(scoreboard.ModelKey{Name: m.Name, Version: m.Version, Digest: m.Digest})
		if err != nil {
			s.log.Warn("model cannot be quarantined", "model", m.Name, "version", m.Version, "err", err)
			continue
		}
		m.Row = row.Number()
	}
}

// freeModels takes the rows back that no generation names any more, none being on its way.
func (s *Supervisor) freeModels() {
	named := map[int]bool{}
	name := func(g *generation) {
		for _, m := range g.models {
			named[m.Row] = true
		}
	}
	name(s.gen)
	for _, w := range s.byPID { // an overdue drain may outlive its reload
		name(w.slot.pool.gen)
	}
	s.shared.board.FreeModels(func(m *scoreboard.Model) bool { return named[m.Number()] })
	for m := range s.deaths {
		if !named[m.Number()] {
			delete(s.deaths, m)
		}
	}
}

// describeModels returns the models of the generation in charge.
func (s *Supervisor) describeModels() []admin.Model {
	models := []admin.Model{}
	for i := range s.gen.models {
		file := &s.gen.models[i]
		m := admin.Model{Name: file.Name, Version: file.Version, Digest: file.Digest, State: "serving", Weights: s.describeWeights(file)}
		if row := s.shared.board.Model(file.Row); row != nil {
			m.Deaths = row.Deaths.Load()
			if m.Deaths > 0 {
				m.Request = scoreboard.RequestText(row.Request())
			}
			if row.Quarantined() {
				why := row.Why()
				m.State, m.Reason, m.Since = admin.StateQuarantined, why.Describe(file.Name, file.Version), &why.Since
			}
		}
		models = append(models, m)
	}
	return models
}

// modelMetrics is the same for metrics.
func (s *Supervisor) modelMetrics() (models []metrics.Model) {
	for _, m := range s.describeModels() {
		mm := metrics.Model{Name: m.Name, Version: m.Version, Quarantined: m.State == admin.StateQuarantined, Deaths: m.Deaths}
		if m.Weights != nil {
			mm.Weighed, mm.Private, mm.Shared, mm.Lost = true, max(m.Weights.Private, 0), m.Weights.Shared, m.Weights.Kind == admin.WeightsLost
		}
		models = append(models, mm)
	}
	return models
}

// Models returns the models of the generation in charge.
func (v service) Models(ctx context.Context) (models []admin.Model, err error) {
	err = v.s.ask(ctx, func() { models = v.s.describeModels() })
	return models, err
}

// Release ends the quarantine of a model.
func (v service) Release(ctx context.Context, name string) (result admin.ReleaseResult, err error) {
	if asked := v.s.ask(ctx, func() { result, err = v.s.releaseModel(name) }); asked != nil {
		return result, asked
	}
	return result, err
}

// releaseModel serves a model again, in each generation that has it, and counts its deaths
// anew.
func (s *Supervisor) releaseModel(name string) (r admin.ReleaseResult, err error) {
	generations := []*generation{s.gen}
	if s.op != nil && s.op.next != nil && s.op.next != s.gen {
		generations = append(generations, s.op.next)
	}
	r.Model = name
	found := false
	var known []string
	for _, g := range generations {
		for _, m := range g.models {
			known = append(known, m.Name)
			if m.Name != name {
				continue
			}
			found = true
			if row := s.shared.board.Model(m.Row); row != nil && row.Quarantined() {
				s.unquarantine(g, m, row)
				r.Released = true
			}
		}
	}
	if !found {
		slices.Sort(known)
		return r, &ipc.Failure{
			Exit: ipc.ExitUsage, What: fmt.Sprintf("there is no model %q", name),
			Try: "name one of " + strings.Join(slices.Compact(known), ", "),
		}
	}
	r.Message = fmt.Sprintf("model %s is not quarantined", name)
	if r.Released {
		r.Message = fmt.Sprintf("model %s is served again", name)
	}
	return r, nil
}

func (s *Supervisor) unquarantine(g *generation, m ipc.ModelFile, row *scoreboard.Model) {
	why := row.Why()
	delete(s.deaths, row)
	row.Release()
	s.log.Info("model released", "model", m.Name, "version", m.Version)
	s.emit(admin.Event{
		Kind: "release", Text: fmt.Sprintf("model %q version %s is served again", m.Name, m.Version), Generation: g.number,
		Model: m.Name, Version: m.Version, Request: scoreboard.RequestText(why.Request), Count: uint64(why.Count),
	})
}
