package batch

import (
	"errors"
	"sync"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/worker/fifo"
)

// keepBytes is how large a tensor of a joint run may be and still be kept for the next.
const keepBytes = 1 << 20

// Options is what Runners are made of.
type Options struct {
	// Stops has one element for each runner, nil where its runs cannot be told to end.
	Stops []inference.Stop
	// Clock is in nanoseconds since whenever it likes. It must not go back.
	Clock func() int64
	// Run runs lead's model, with n jobs in one: it calls lead.Model.Runner.RunUntil, once,
	// and whatever the caller wants done before and after that.
	Run func(lead *Job, n int, stop inference.Stop, in, out []inference.Tensor) error
	// Gone tells whether nobody wants the result of j any more. It is asked before j runs
	// if j has waited for a while; it must not call back. nil: somebody always does.
	Gone func(j *Job) bool
}

// whiles is how long a job has waited of which Gone is asked, in nanoseconds: a system call
// for each that has waited for less would cost more than it saves.
const whiles = int64(5 * time.Millisecond)

// Runners is a fixed number of places to run models, and the line of those who wait for one.
type Runners struct {
	options Options

	mu       sync.Mutex // guards everything below, and the jobs' fields that say so
	places   []place
	free     []*place // the last one goes next
	line     fifo.Line[*Job]
	refusing bool
	timer    *time.Timer // when the first who waits for company has waited enough; nil: nobody ever did
}

// place is one runner, and the run that takes place in it.
type place struct {
	stop    inference.Stop
	stopped bool
	jobs    []*Job // the first leads; nil: it has left
	rows    []int  // of each
	size    int    // jobs that it began with
	left    int    // how many have left, or want to
	in, out []inference.Tensor
}

// New returns runners, all free.
func New(o Options) *Runners {
	if len(o.Stops) == 0 {
		panic("batch: no runners")
	}
	if o.Gone == nil {
		o.Gone = func(*Job) bool { return false }
	}
	r := &Runners{options: o, places: make([]place, len(o.Stops))}
	for i := range r.places {
		r.places[i].stop = o.Stops[i]
		r.free = append(r.free, &r.places[i])
	}
	return r
}

// Size returns how many runners there are.
func (r *Runners) Size() int { return len(r.places) }

// Waiting returns how many jobs wait in line.
func (r *Runners) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.line.Len()
}

// Do runs j, waiting for a runner, and returns when it has run or was given up. The error
// is that of the run, ErrLeft, ErrGone, ErrRefused, or inference.ErrStopped for a job that was given
// up while it ran.
func (r *Runners) Do(j *Job) error {
	if j.turn == nil {
		j.turn = make(chan bool, 1)
	}
	rows := j.joinable()
	r.mu.Lock()
	j.rows, j.quit, j.err, j.Led, j.Joined = rows, false, nil, false, 0
	if n := len(r.free); n > 0 && r.line.Len() == 0 && !j.lingers() {
		p := r.free[n-1]
		r.free = r.free[:n-1]
		p.begin(j)
		r.mu.Unlock()
		return r.lead(p, j)
	}
	if r.refusing && len(r.free) == 0 {
		r.mu.Unlock()
		return ErrRefused
	}
	j.since = r.options.Clock()
	j.state, j.standing.Of = waiting, j
	r.line.Push(&j.standing)
	r.grant()
	r.mu.Unlock()
	if <-j.turn {
		return r.lead(j.place, j)
	}
	return j.err
}

// lingers tells whether j waits for company although a runner is free.
func (j *Job) lingers() bool { return j.Model.Delay > 0 && j.rows > 0 && j.rows < j.Model.Most }

// GiveUp makes Do return for j as soon as it can: at once while j waits or others run it
// along with theirs. Its own run is told to stop, as far as the engine can, when nobody else
// wants it. It changes nothing for a job that has run.
func (r *Runners) GiveUp(j *Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch j.state {
	case waiting:
		r.line.Remove(&j.standing)
		j.end(ErrLeft)
	case joined:
		r.leave(j)
	case gathered, leading, alone:
		if !j.quit {
			j.quit = true
			j.place.lose(j)
		}
	}
}

// leave takes j, which is joined, out of its run. The lock is held.
func (r *Runners) leave(j *Job) {
	p := j.place
	p.jobs[j.index] = nil
	if !j.quit {
		p.lose(j)
	}
	j.end(inference.ErrStopped)
}

// lose notes that j no longer wants its run. The lock is held.
func (p *place) lose(j *Job) {
	p.left++
	if (p.left == p.size || j.state == alone) && p.stop != nil && !p.stopped {
		p.stopped = true
		p.stop.Set()
	}
}

// end makes Do return err for j, which waits for its turn. The lock is held.
func (j *Job) end(err error) {
	j.state, j.place, j.err = ended, nil, err
	j.turn <- false // has room: a job ends once
}

// Refuse ends the waiting: whoever is in line, and from now on whoever finds no runner
// free, gets ErrRefused.
func (r *Runners) Refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = true
	for at := r.line.First(); at != nil; at = r.line.First() {
		r.line.Remove(at)
		at.Of.end(ErrRefused)
	}
}

// grant gives free runners to the first in line whose turn it is. The lock is held.
func (r *Runners) grant() {
	for len(r.free) > 0 && r.line.Len() > 0 {
		j := r.ripe()
		if j == nil {
			return
		}
		next := j.standing.Next()
		r.line.Remove(&j.standing)
		if r.gone(j) {
			continue
		}
		last := len(r.free) - 1
		p := r.free[last]
		r.free = r.free[:last]
		p.begin(j)
		r.gather(p, next)
		j.turn <- true
	}
}

// gone ends j, which has just left the line, if nobody wants it any more. The lock is held.
func (r *Runners) gone(j *Job) bool {
	if r.options.Clock()-j.since < whiles || !r.options.Gone(j) {
		return false
	}
	j.end(ErrGone)
	return true
}

// ripe returns the first in line that need not wait for company any longer. If there is
// none, the timer comes when there is. The lock is held.
func (r *Runners) ripe() *Job {
	now, soonest := int64(0), int64(-1)
	for at := r.line.First(); at != nil; at = at.Next() {
		j := at.Of
		if !j.lingers() || r.company(j) {
			return j
		}
		if now == 0 {
			now = r.options.Clock()
		}
		left := j.since + int64(j.Model.Delay) - now
		if left <= 0 {
			return j
		}
		if soonest < 0 || left < soonest {
			soonest = left
		}
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(time.Duration(soonest), r.ripen)
	} else {
		r.timer.Reset(time.Duration(soonest))
	}
	return nil
}

func (r *Runners) ripen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.grant()
}

// company tells whether those in line from j on fill a run. The lock is held.
func (r *Runners) company(j *Job) bool {
	rows := 0
	for at := &j.standing; at != nil; at = at.Next() {
		if o := at.Of; joins(j, o) {
			if rows += o.rows; rows >= j.Model.Most {
				return true
			}
		}
	}
	return false
}

// begin makes j lead a run in p. The lock is held.
func (p *place) begin(j *Job) {
	j.state, j.place, j.index = leading, p, 0
	p.jobs, p.rows = append(p.jobs[:0], j), append(p.rows[:0], j.rows)
	p.size, p.left, p.stopped = 1, 0, false
}

// gather takes those along, from at on, that can be joined to the run in p. Of the same
// model and shape none overtakes another. The lock is held.
func (r *Runners) gather(p *place, at *fifo.Place[*Job]) {
	lead := p.jobs[0]
	if lead.rows == 0 {
		return
	}
	rows := lead.rows
	for at != nil && rows < lead.Model.Most {
		j, next := at.Of, at.Next()
		if joins(lead, j) {
			if rows+j.rows > lead.Model.Most {
				break
			}
			r.line.Remove(at)
			if r.gone(j) {
				at = next
				continue
			}
			rows += j.rows
			j.state, j.place, j.index = gathered, p, len(p.jobs)
			p.jobs, p.rows = append(p.jobs, j), append(p.rows, j.rows)
		}
		at = next
	}
	p.size = len(p.jobs)
}

// release frees p, whose run has ended, for the next in line.
func (r *Runners) release(p *place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, j := range p.jobs {
		switch {
		case i == 0:
			j.state, j.place = ended, nil
		case j != nil: // the run has panicked
			j.end(errPanic)
		}
		p.jobs[i] = nil
	}
	p.unstop()
	r.free = append(r.free, p)
	r.grant()
}

var errPanic = errors.New("the run that this request was joined to has panicked")

// unstop lets p's next run run. The lock is held.
func (p *place) unstop() {
	if p.stopped {
		p.stop.Clear()
		p.stopped = false
	}
}
