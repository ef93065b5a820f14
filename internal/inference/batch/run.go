package batch

import (
	"errors"
	"time"

	"preforkd/internal/inference"
)

// lead runs the jobs in p, of which j leads, and returns what j ends with.
func (r *Runners) lead(p *place, j *Job) error {
	defer r.release(p) // the engine may panic
	if p.size == 1 {
		return r.run(j, 1, p.stop, j.In, j.Out)
	}
	return r.joint(p, j)
}

// run runs lead's model for n jobs and notes how long that took.
func (r *Runners) run(lead *Job, n int, stop inference.Stop, in, out []inference.Tensor) error {
	lead.Led, lead.Joined, lead.Began = true, n, r.options.Clock()
	err := r.options.Run(lead, n, stop, in, out)
	lead.Ended = r.options.Clock()
	if err == nil {
		lead.Model.Learn(time.Duration(lead.Ended-lead.Began), n)
	}
	return err
}

// joint runs all jobs in p at once, or, where that fails, one by one.
func (r *Runners) joint(p *place, lead *Job) (err error) {
	rows := 0
	for _, n := range p.rows {
		rows += n
	}
	defer p.trim()
	p.in, err = join(p.in, p.jobs, rows) // all are there: they are gathered
	r.copied(p)
	p.out = resize(p.out, len(lead.Out))
	if err == nil {
		err = r.run(lead, p.size, p.stop, p.in, p.out)
	}
	if errors.Is(err, inference.ErrStopped) { // all have given up
		return err
	}
	if err == nil {
		if err = rowwise(p.out, rows); err == nil {
			return r.deliver(p, lead, rows)
		}
		lead.Model.setApart(err)
	}
	return r.oneByOne(p, lead)
}

// copied notes that the run needs the jobs' own tensors no longer: those that have given up
// meanwhile go.
func (r *Runners) copied(p *place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range p.jobs[1:] {
		if j.state = joined; j.quit {
			r.leave(j)
		}
	}
}

// deliver gives each job in p its rows of the result.
func (r *Runners) deliver(p *place, lead *Job, rows int) (err error) {
	from := 0
	for i, n := range p.rows {
		if j, _ := r.take(p, i, delivered); j != nil {
			e := split(j.Out, p.out, from, n, rows)
			if j == lead {
				err = e
			} else {
				j.Began, j.Ended, j.Joined = lead.Began, lead.Ended, p.size
				r.finish(p, j, e)
			}
		}
		from += n
	}
	return err
}

// oneByOne runs each job in p by itself.
func (r *Runners) oneByOne(p *place, lead *Job) (err error) {
	for i := range p.rows {
		j, quit := r.take(p, i, alone)
		if j == nil {
			continue
		}
		e := inference.ErrStopped
		if !quit { // only the lead can be here and have given up: see GiveUp
			e = r.run(j, 1, p.stop, j.In, j.Out)
		}
		r.mu.Lock()
		p.unstop()
		r.mu.Unlock()
		if j == lead {
			err = e
		} else {
			r.finish(p, j, e)
		}
	}
	return err
}

// take returns job i of p, in a state that it does not leave by itself, and whether it has
// given up; nil: it has left.
func (r *Runners) take(p *place, i int, s state) (j *Job, quit bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if j = p.jobs[i]; j == nil {
		return nil, false
	}
	j.state = s
	return j, j.quit
}

// finish makes Do return err for j.
func (r *Runners) finish(p *place, j *Job, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.jobs[j.index] = nil
	j.end(err)
}

// trim frees the tensors of a large run.
func (p *place) trim() {
	for i := range p.in {
		p.in[i].Trim(keepBytes)
	}
	for i := range p.out {
		p.out[i].Trim(keepBytes)
	}
}
