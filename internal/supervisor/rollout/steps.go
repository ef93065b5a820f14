package rollout

// maxEnds is how often a worker may end while it is brought back. After that its slot
// is left to the supervisor, which goes on by the slot's crash budget: the new workers
// that serve in its place may be what keeps it from starting, where memory is short.
const maxEnds = 3

// carryOut does s.
func (r *Rollout) carryOut(s step) {
	switch s {
	case boot:
		r.boot()
	case test:
		r.test()
	case bake:
		r.test()
		r.wind(r.plan.Bake)
	case try:
		r.try()
	case count:
		r.counts = true
		r.do(Action{Do: Count})
	case fill:
		r.fill()
	case promote:
		r.promote()
	case restart:
		r.restart()
	case settle:
		r.settle()
	case undo:
		r.undo()
	case finish:
		r.do(Action{Do: Finish, Outcome: r.outcome, Reason: r.reason})
	}
}

// boot starts the canary. It counts on the old workers that serve now.
func (r *Rollout) boot() {
	r.plan.Floor = min(r.plan.Floor, r.serving(), r.plan.New)
	r.seats[New][canary.Slot].held = true
	r.start(canary)
}

// try lets the canary accept.
func (r *Rollout) try() {
	c := r.seat(canary)
	c.held, c.state = false, serving
	r.do(Action{Do: Accept, Worker: canary})
	if r.plan.Trial > 0 {
		r.do(Action{Do: Share, Of: r.serving()})
	}
	r.wind(r.plan.Trial)
}

// restart starts again what ended untold: old workers before the commit, new ones after.
func (r *Rollout) restart() {
	for g := range r.seats {
		for slot := range r.seats[g] {
			if r.seats[g][slot].state == down {
				r.start(Worker{Gen(g), slot})
			}
		}
	}
}

// fill starts new workers while there is room. Where room is short it lets old ones
// leave, as many as new ones wait, and no more than the floor allows.
//
// It never waits for an old worker to become ready: one that is not is the first to
// leave. When all new ones that have room serve, more serve than the floor asks for, so
// that one of the old can leave: it never stands still.
func (r *Rollout) fill() {
	r.report()
	for slot := range r.seats[Old] {
		if s := &r.seats[Old][slot]; s.state == down {
			if r.room() > 0 && r.room()+r.going() > r.count(New, absent) {
				r.start(Worker{Old, slot})
			} else {
				s.state, s.ours = absent, true // its place goes to a new one
			}
		}
	}
	for slot := range r.seats[New] {
		if r.seats[New][slot].state == absent && r.room() > 0 {
			r.start(Worker{New, slot})
		}
	}
	for r.count(New, absent) > r.going() && r.giveWay() {
	}
	switch {
	case r.count(New, serving) < r.plan.New:
	case r.plan.Joint:
		r.feed(filled, Worker{}, "")
	default:
		r.feed(complete, Worker{}, "")
	}
}

// giveWay makes one old worker leave, one that does not serve first, and tells whether
// one may.
func (r *Rollout) giveWay() bool {
	for _, victim := range []state{coming, serving} {
		if victim == serving && r.serving()-1 < r.plan.Floor {
			return false
		}
		for slot := range r.seats[Old] {
			if s := &r.seats[Old][slot]; s.state == victim {
				s.ours = true
				r.leave(Worker{Old, slot})
				return true
			}
		}
	}
	return false
}

// promote makes the new generation the one that serves. From here on nothing of it is
// taken away.
func (r *Rollout) promote() {
	r.outcome = Committed
	r.do(Action{Do: Commit})
	r.report()
	for slot := range r.seats[Old] {
		switch s := &r.seats[Old][slot]; s.state {
		case coming, serving:
			r.leave(Worker{Old, slot})
		case lost: // it leaves already
			s.state = leaving
		case down:
			s.state = absent
		}
	}
	r.settle()
}

// settle ends the reload when the last old process is gone.
func (r *Rollout) settle() {
	if r.processes(Old) == 0 {
		r.feed(complete, Worker{}, "")
	}
}

// undo takes the new generation away and brings back what it replaced. A new worker that
// serves stays until an old one does instead.
func (r *Rollout) undo() {
	for slot := range r.seats[New] {
		switch s := &r.seats[New][slot]; s.state {
		case coming, waiting:
			r.leave(Worker{New, slot})
		case serving:
			if s.condemned || r.serving()-1 >= r.floor() {
				r.leave(Worker{New, slot})
			}
		}
	}
	over := r.processes(New) == 0
	for slot := range r.seats[Old] {
		s := &r.seats[Old][slot]
		if (s.state == absent || s.state == down) && r.room() > 0 {
			r.start(Worker{Old, slot})
		}
		if s.ours && s.state != serving && s.ends < maxEnds {
			over = false
		}
	}
	if over {
		r.feed(complete, Worker{}, "")
	}
}

// floor is how many workers must serve while the reload is taken back: fewer where old
// ones cannot be brought back.
func (r *Rollout) floor() int {
	able := 0
	for _, s := range r.seats[Old] {
		if s.state == serving || s.ends < maxEnds {
			able++
		}
	}
	return min(r.plan.Floor, able)
}

func (r *Rollout) start(w Worker) {
	s := r.seat(w)
	s.state = coming
	r.do(Action{Do: Start, Worker: w, Held: s.held})
}

// leave makes w leave: politely if it serves.
func (r *Rollout) leave(w Worker) {
	s := r.seat(w)
	a := Action{Do: Remove, Worker: w}
	if s.state == serving {
		a.Do = Drain
	}
	s.state = leaving
	r.do(a)
}

// serving returns how many workers accept and are not condemned.
func (r *Rollout) serving() int {
	n := 0
	for _, seats := range r.seats {
		for _, s := range seats {
			if s.state == serving && !s.condemned {
				n++
			}
		}
	}
	return n
}

func (r *Rollout) count(g Gen, st state) int {
	n := 0
	for _, s := range r.seats[g] {
		if s.state == st {
			n++
		}
	}
	return n
}

// going returns how many old workers will end without being told again.
func (r *Rollout) going() int { return r.count(Old, leaving) + r.count(Old, lost) }

func (r *Rollout) processes(g Gen) int {
	n := 0
	for _, s := range r.seats[g] {
		if s.process() {
			n++
		}
	}
	return n
}

// room returns how many processes may be started.
func (r *Rollout) room() int { return r.limit - r.processes(Old) - r.processes(New) }
