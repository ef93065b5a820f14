package batch

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/worker/fifo"
)

// Errors of Do.
var (
	ErrLeft    = errors.New("given up before a runner was free")
	ErrRefused = errors.New("no runner will become free")
	ErrGone    = errors.New("nobody wanted the result any more when a runner was free")
)

// Runner is what runs a model: inference.Model's RunUntil, which only one caller at a time
// may use.
type Runner interface {
	RunUntil(stop inference.Stop, in, out []inference.Tensor) error
}

// Model is how the jobs of one model are run. The fields are set before it is used.
type Model struct {
	Runner Runner
	// Most is how many rows one run may have; below 2 no jobs are joined.
	Most int
	// Delay is how long a job waits for company while a runner is free.
	Delay time.Duration
	// Apart is called, once, when a joint run has shown that jobs cannot be joined, with
	// the reason; from then on none are. nil: nobody is told.
	Apart func(why error)

	apart atomic.Bool
	took  atomic.Int64 // nanoseconds of a runner for one job, smoothed; 0: not known yet
}

// Expect returns how long one job keeps a runner, as the latest did; 0: none has run yet.
func (m *Model) Expect() time.Duration { return time.Duration(m.took.Load()) }

// Learn notes that n jobs have kept a runner for so long. Runners that learn at once may
// lose one of their samples.
func (m *Model) Learn(took time.Duration, n int) {
	each := int64(took) / int64(n)
	old := m.took.Load()
	if old == 0 {
		m.took.Store(max(each, 1))
		return
	}
	m.took.Store(max(old+(each-old)/8, 1))
}

func (m *Model) setApart(why error) {
	if m.apart.CompareAndSwap(false, true) && m.Apart != nil {
		m.Apart(why)
	}
}

// Job is one request's run of a model. The zero value is ready; it may be used again when
// Do has returned.
type Job struct {
	Model   *Model
	In, Out []inference.Tensor // as of inference.Model's Run
	Holder  any                // the caller's

	// What Do tells: when the run began and ended, by Options.Clock; how many jobs it
	// had, and whether this one led it, so that each run is counted once.
	Began, Ended int64
	Joined       int
	Led          bool

	// The line's, under Runners.mu.
	state    state
	standing fifo.Place[*Job]
	rows     int // that it adds to a run; 0: it is never joined
	since    int64
	place    *place
	index    int // in place.jobs
	quit     bool
	err      error
	turn     chan bool // true: lead; false: it has ended
}

// state is where a job is.
type state uint8

const (
	ended     state = iota // or not begun
	waiting                // in line
	gathered               // in a run whose inputs are being copied from the job's
	joined                 // in a run that no longer needs the job
	leading                // its goroutine runs
	alone                  // its own tensors are being run for it
	delivered              // its results are being copied
)

// joinable returns how many rows j adds to a run: the first size of each of its inputs, or
// 0 if it is to be run by itself.
func (j *Job) joinable() int {
	m := j.Model
	if m.Most < 2 || m.apart.Load() {
		return 0
	}
	rows := int64(-1)
	for i := range j.In {
		t := &j.In[i]
		switch {
		case t.DataType == inference.Invalid: // left out
		case len(t.Shape) == 0 || t.Shape[0] < 1 || t.Shape[0] > int64(m.Most) || rows >= 0 && t.Shape[0] != rows:
			return 0
		default:
			rows = t.Shape[0]
		}
	}
	return int(max(rows, 0))
}

// joins tells whether one run can answer a and b, as far as their inputs tell.
func joins(a, b *Job) bool {
	if a.Model != b.Model || a.rows == 0 || b.rows == 0 {
		return false
	}
	for i := range a.In {
		s, t := &a.In[i], &b.In[i]
		if s.DataType != t.DataType {
			return false
		}
		if s.DataType != inference.Invalid && !slices.Equal(s.Shape[1:], t.Shape[1:]) {
			return false
		}
	}
	return true
}
