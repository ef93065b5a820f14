package rollout

// Joint is one reload of several pools: their reloads run one after the other, each with
// a canary and a gate of its own, and all commit together when the last one is through.
// What goes wrong in one of them until then takes all of them back.
//
// It belongs to one goroutine.
type Joint struct {
	parts    []*Rollout
	ends     []*Action // their Finish; nil: not yet
	turn     int       // the part that runs; those before it hold
	failed   int       // the first part that failed; -1: none
	agreed   bool
	dryRun   bool
	finished bool
	out      []Action
}

// BeginAll starts a reload of the pools that plans are about, at least one of them, and
// returns the first actions. A pool that the new generation does not have has a plan
// without New workers.
func BeginAll(plans []Plan) (*Joint, []Action) {
	j := &Joint{parts: make([]*Rollout, len(plans)), ends: make([]*Action, len(plans)), failed: -1, dryRun: plans[0].DryRun}
	for i, p := range plans {
		p.Joint = len(plans) > 1
		r, actions := Begin(p)
		j.parts[i] = r
		j.keep(i, actions)
	}
	if len(plans) > 1 {
		j.give(0)
	}
	j.settle()
	return j, j.take()
}

// Handle returns what follows from e.
func (j *Joint) Handle(e Event) []Action {
	switch {
	case j.finished:
	case e.Kind == OnAbort || e.Kind == OnStop:
		for i := range j.parts {
			j.pass(i, e)
		}
	case e.Pool >= 0 && e.Pool < len(j.parts):
		j.pass(e.Pool, e)
	}
	j.settle()
	return j.take()
}

// Committed tells whether there is no way back.
func (j *Joint) Committed() bool { return j.parts[0].Committed() }

// Has tells whether the reload decides about the workers of a pool, which it does until
// Release or Finish.
func (j *Joint) Has(pool int) bool { return j.parts[pool].Phase() != Done }

// pass hands e to a part.
func (j *Joint) pass(i int, e Event) { j.keep(i, j.parts[i].Handle(e)) }

// keep takes over what a part wants done. That it commits and that it ends is said once
// for all of them.
func (j *Joint) keep(i int, actions []Action) {
	for _, a := range actions {
		a.Pool = i
		switch {
		case a.Do == Finish:
			j.ends[i] = &a
			if len(j.parts) > 1 {
				j.out = append(j.out, Action{Do: Release, Pool: i})
			}
		case a.Do == Commit && i > 0:
		default:
			j.out = append(j.out, a)
		}
	}
}

// give makes it part i's turn.
func (j *Joint) give(i int) {
	j.turn = i
	if i < len(j.parts) && !(j.dryRun && j.parts[i].plan.New == 0) {
		j.pass(i, Event{Kind: OnTurn})
	}
}

// settle draws the conclusions from how far the parts are.
func (j *Joint) settle() {
	for j.failed < 0 && j.turn < len(j.parts) && j.through(j.turn) {
		j.give(j.turn + 1)
	}
	for i, r := range j.parts {
		if j.failed < 0 && !j.agreed && r.outcome == RolledBack {
			j.failed = i
			j.takeBack(Event{Kind: OnAbort, Why: r.reason})
		}
	}
	if len(j.parts) > 1 && j.turn == len(j.parts) && j.failed < 0 && !j.agreed {
		j.agreed = true
		if j.dryRun { // a pool that is to go has nothing to rehearse
			j.takeBack(Event{Kind: OnAbort})
		} else {
			for i := range j.parts {
				j.pass(i, Event{Kind: OnAgreed})
			}
		}
	}
	j.finish()
}

// through tells whether nothing more is to be done for part i until all others are as
// far.
func (j *Joint) through(i int) bool {
	r := j.parts[i]
	return r.phase == Holding || r.outcome == Rehearsed && r.phase == Done || j.dryRun && r.plan.New == 0
}

// takeBack takes back what has not ended.
func (j *Joint) takeBack(e Event) {
	for i, end := range j.ends {
		if end == nil {
			j.pass(i, e)
		}
	}
}

// finish ends the reload when every part has ended.
func (j *Joint) finish() {
	if j.finished {
		return
	}
	for _, end := range j.ends {
		if end == nil {
			return
		}
	}
	j.finished = true
	a := *j.ends[0]
	switch {
	case j.failed >= 0:
		a = *j.ends[j.failed]
	case j.agreed && j.dryRun:
		a.Outcome, a.Reason = Rehearsed, ""
	default: // some may have rehearsed already when the service stops
		for _, end := range j.ends {
			if end.Outcome == Stopped {
				a = *end
			}
		}
	}
	j.out = append(j.out, a)
}

func (j *Joint) take() []Action {
	out := j.out
	j.out = nil
	return out
}
