package load

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A Generator is one run of load: New, Run once, read the report. The other methods
// may be called from any goroutine, before, during and after Run.
type Generator struct {
	o        Options
	ran      atomic.Bool
	start    time.Time
	started  atomic.Bool   // start is set
	quit     chan struct{} // closed when no request is to be sent any more
	quitOnce sync.Once
	quitAt   atomic.Int64 // when that was, ns since start; 0: not yet
	killed   atomic.Bool  // the context has ended: connections are closed

	tickets  atomic.Uint64 // measured requests begun, where Options.Requests bounds them
	arrivals *arrivals     // nil in a closed loop
	clients  []*client
	live     live
}

// New returns a generator that has not started, or what is wrong with o.
func New(o Options) (*Generator, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	g := &Generator{o: o, quit: make(chan struct{})}
	g.live.init()
	if o.Rate > 0 {
		g.arrivals = newArrivals(&o)
	}
	for id := range o.Conns {
		g.clients = append(g.clients, newClient(g, id))
	}
	return g, nil
}

// Run generates load with options o; see Generator.Run.
func Run(ctx context.Context, o Options) (*Report, error) {
	g, err := New(o)
	if err != nil {
		return nil, err
	}
	return g.Run(ctx)
}

// Run sends requests until the options' bounds, Stop or the end of ctx, and returns
// the report when every goroutine that it started has ended. At a bound and after Stop
// requests in flight are awaited; the end of ctx closes their connections and counts
// them as abandoned. The only error is a second call.
func (g *Generator) Run(ctx context.Context) (*Report, error) {
	if g.ran.Swap(true) {
		return nil, errors.New("load: this generator has run already")
	}
	g.start = time.Now()
	g.started.Store(true)
	g.live.lastAnswer.Store(int64(g.o.Warmup))
	stopKill := context.AfterFunc(ctx, g.kill)
	defer stopKill()
	if g.o.Duration > 0 {
		end := time.AfterFunc(g.o.Warmup+g.o.Duration, g.Stop)
		defer end.Stop()
	}
	warm := time.AfterFunc(g.o.Warmup, g.live.wake) // Wait sees Progress.Measuring change
	defer warm.Stop()

	var clients sync.WaitGroup
	for _, c := range g.clients {
		clients.Go(func() { c.run(ctx) })
	}
	clients.Wait()
	g.Stop()
	r := g.report()
	g.live.end()
	return r, nil
}

// Stop ends the sending; requests in flight are awaited, by Run. Calls after the first
// do nothing.
func (g *Generator) Stop() {
	g.quitOnce.Do(func() {
		if g.started.Load() {
			g.quitAt.Store(max(int64(g.now()), 1))
		} else {
			g.quitAt.Store(1)
		}
		close(g.quit)
	})
}

// kill ends the sending and the requests in flight.
func (g *Generator) kill() {
	g.Stop()
	g.killed.Store(true)
	for _, c := range g.clients {
		c.cut()
	}
}

// now is the time since the start.
func (g *Generator) now() time.Duration { return time.Since(g.start) }

// quitting tells whether no further request is to be sent.
func (g *Generator) quitting() bool { return g.quitAt.Load() != 0 }

// ends returns the moment from which on no request begins, so far as it is known.
func (g *Generator) ends() time.Duration {
	end := time.Duration(math.MaxInt64)
	if g.o.Duration > 0 {
		end = g.o.Warmup + g.o.Duration
	}
	if at := g.quitAt.Load(); at != 0 {
		end = min(end, time.Duration(at))
	}
	return end
}

// admit decides whether a request that begins at may be sent, and whether it is
// measured.
func (g *Generator) admit(at time.Duration) (measured, ok bool) {
	if g.quitting() || at >= g.ends() {
		return false, false
	}
	if at < g.o.Warmup {
		return false, true
	}
	if g.o.Requests > 0 {
		n := g.tickets.Add(1)
		if n >= g.o.Requests { // the last one, or one too many
			g.Stop()
		}
		return true, n <= g.o.Requests
	}
	return true, true
}
