package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// live is what can be seen of a run while it lasts. Clients add, anyone reads.
type live struct {
	answers    atomic.Uint64
	failures   [classes]atomic.Uint64
	dials      atomic.Uint64
	idleCloses atomic.Uint64
	inFlight   atomic.Int64

	lastAnswer atomic.Int64 // ns since start
	gap        atomic.Int64 // the longest, ns
	gapEnd     atomic.Int64 // when it ended, ns since start

	waiters atomic.Int32
	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	ended   bool
	workers map[string]*workerRow
	first   []Failure
	closed  []IdleClose
}

// workerRow counts what one worker answered, and the failures of connections on which
// it had answered last.
type workerRow struct {
	name       string
	answers    atomic.Uint64 // all
	measured   atomic.Uint64 // without those of the warm-up
	failures   [classes]atomic.Uint64
	idleCloses atomic.Uint64
}

func (l *live) init() {
	l.changed = sync.NewCond(&l.mu)
	l.workers = map[string]*workerRow{}
}

// worker returns the row of the worker called name.
func (l *live) worker(name []byte) *workerRow {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.workers[string(name)]
	if w == nil {
		w = &workerRow{name: string(name)}
		l.workers[w.name] = w
	}
	return w
}

// answered counts a successful answer at now, and the gap before it.
func (l *live) answered(now time.Duration, measured bool) {
	l.answers.Add(1)
	if measured {
		l.mindGap(now)
	}
	l.event()
}

// mindGap takes the time since the last answer as a gap that ends now.
func (l *live) mindGap(now time.Duration) {
	last := l.lastAnswer.Load()
	for int64(now) > last {
		if l.lastAnswer.CompareAndSwap(last, int64(now)) {
			break
		}
		last = l.lastAnswer.Load()
	}
	gap := int64(now) - last
	for old := l.gap.Load(); gap > old; old = l.gap.Load() {
		if l.gap.CompareAndSwap(old, gap) {
			l.gapEnd.Store(int64(now)) // two gaps within nanoseconds may exchange their ends
			break
		}
	}
}

// event wakes those that wait for a change of the counters.
func (l *live) event() {
	if l.waiters.Load() > 0 {
		l.wake()
	}
}

func (l *live) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.changed.Broadcast()
}

// Progress is how far a run is. Everything counts from the start, warm-up included.
type Progress struct {
	Answers    uint64            `json:"answers"`     // successful ones
	Failures   Counts            `json:"failures"`    // by class
	Dials      uint64            `json:"dials"`       // successful ones
	IdleCloses uint64            `json:"idle_closes"` // seen so far
	InFlight   int64             `json:"in_flight"`   // requests without an end
	Measuring  bool              `json:"measuring"`   // the warm-up is over
	Workers    map[string]uint64 `json:"workers"`     // answers, by worker that said its name
}

// Requests returns how many requests have ended with an answer or a failure.
func (p *Progress) Requests() uint64 { return p.Answers + p.Failures.Total() }

// Progress returns the counters as they stand. They are read one after the other: a
// request that ends meanwhile may be in some of them only.
func (g *Generator) Progress() Progress {
	g.live.mu.Lock()
	defer g.live.mu.Unlock()
	return g.progress()
}

// progress is Progress with live.mu held.
func (g *Generator) progress() Progress {
	l := &g.live
	p := Progress{
		Answers: l.answers.Load(), Dials: l.dials.Load(), IdleCloses: l.idleCloses.Load(),
		InFlight: l.inFlight.Load(), Workers: make(map[string]uint64, len(l.workers)),
		Measuring: g.started.Load() && g.now() >= g.o.Warmup,
	}
	for i := range l.failures {
		p.Failures[i] = l.failures[i].Load()
	}
	for name, w := range l.workers {
		if name != "" {
			p.Workers[name] = w.answers.Load()
		}
	}
	return p
}

// ErrEnded is returned by the Wait methods when the run ended first.
var ErrEnded = errors.New("load: the run ended first")

// Wait returns nil as soon as cond holds. It looks whenever a request has ended,
// a connection was made or found closed, and when the measured time begins. When the run has ended and cond does not hold it returns ErrEnded, at the end of ctx
// the context's error. cond must not call the generator.
func (g *Generator) Wait(ctx context.Context, cond func(Progress) bool) error {
	l := &g.live
	l.waiters.Add(1)
	defer l.waiters.Add(-1)
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if cond(g.progress()) {
			return nil
		}
		if l.ended {
			return ErrEnded
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		l.changed.Wait()
	}
}

// WaitAnswers returns nil when n requests have been answered successfully since the
// start; otherwise as Wait.
func (g *Generator) WaitAnswers(ctx context.Context, n uint64) error {
	return g.Wait(ctx, func(p Progress) bool { return p.Answers >= n })
}

// WaitMore returns nil when n more requests have been answered successfully than at
// the call; otherwise as Wait.
func (g *Generator) WaitMore(ctx context.Context, n uint64) error {
	return g.WaitAnswers(ctx, g.live.answers.Load()+n)
}
