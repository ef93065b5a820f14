package api

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/batch"
	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/codec"
)

// call is what one permit's holder does, seen by Watch. The holder writes until and the
// fields above lock with nothing but two atomic operations; the races are in
// docs/internals/request-clock.md.
type call struct {
	// until is when the run in progress ends by the request clock, since epoch: never
	// 0. idle: there is none. looking: Watch looks whether the client is there. overdue:
	// Watch has taken notice. In both the holder goes through lock to leave.
	until atomic.Int64

	ctx   *fasthttp.RequestCtx
	model *repository.Model
	start int64 // when the request began, since epoch
	limit timeLimit
	job   batch.Job

	detailed bool // its errors have FastAPI's form

	lock     sync.Mutex
	noticed  time.Time // when Watch took notice
	answered bool      // by Watch; or it has tried, and never tries again
	cut      bool      // the client has its answer
	gone     bool      // the client has gone before it was

	seen int64 // until, when Watch looked last; its own

	_ [64]byte // the next permit's line
}

const (
	idle    = 0
	overdue = -1
	looking = -2
)

// errAnswered is the error of a request whose client has been answered meanwhile.
var errAnswered = errors.New("answered by the request clock")

// epoch makes an instant on the monotonic clock fit into a word.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// begin notes that the holder of c's permit is about to run m for ctx, and returns until when.
func (c *call) begin(ctx *fasthttp.RequestCtx, m *repository.Model, start int64, l timeLimit) (until int64) {
	c.ctx, c.model, c.start, c.limit, c.detailed = ctx, m, start, l, inDetail(ctx)
	until = l.end(start)
	c.until.Store(until)
	return until
}

// end notes that the run begun with until has ended with err, and returns what the
// request ends with.
func (c *call) end(until int64, err error) error {
	if errors.Is(err, batch.ErrGone) {
		err = errGone
	}
	if c.until.CompareAndSwap(until, idle) {
		return err
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.until.CompareAndSwap(until, idle) { // Watch has only looked
		return err
	}
	cut, gone := c.cut, c.gone
	c.cut, c.answered, c.gone = false, false, false
	c.until.Store(idle)
	switch {
	case cut:
		return errAnswered
	case gone && errors.Is(err, batch.ErrLeft):
		return errGone
	case gone: // also with a result: it goes nowhere
		return errForsaken
	case errors.Is(err, batch.ErrLeft):
		return c.limit.busy()
	case errors.Is(err, inference.ErrStopped):
		return lateError(c.model, c.limit)
	}
	return err
}

// lateError is what a request ends with whose model took too long.
func lateError(m *repository.Model, l timeLimit) error {
	return describe(inference.ErrStopped, "model %q gave no answer within %s, which is %s", m.Name, l.of, l.Duration)
}

// How Watch divides time. It looks often enough to be late by an eighth of the limit at
// most, and after a run that it has told to stop.
const (
	shortestLook  = time.Millisecond
	longestLook   = 250 * time.Millisecond
	urgentLook    = 50 * time.Millisecond  // while a call is overdue
	shortestGrace = 5 * time.Millisecond   // for the operator under way: an eighth of the limit,
	longestGrace  = 250 * time.Millisecond // but not less and not more than these
)

// Watch is the request clock of runs, which are calls into native code that nobody can
// leave: a run that lasts until its request's time is over is told to stop, and if that
// does not end it shortly after, its client is answered all the same. It also finds the
// requests whose clients have gone: they leave the line, or their run is told to stop. It
// returns when ctx has ended. One goroutine calls it, at most once.
//
// In a worker that leaves (Ready is false) and whose runners are all taken by such runs
// nobody waits for one any more.
func (a *API) Watch(ctx context.Context) {
	timer := time.NewTimer(a.interval())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(a.look(a.interval()))
	}
}

// interval is how often to look while no run is due.
func (a *API) interval() time.Duration {
	shortest := a.view.Load().shortest
	if shortest <= 0 {
		return longestLook
	}
	return min(max(shortest/8, shortestLook), longestLook)
}

// look sees to every call and returns when to look again: at the latest after longest.
func (a *API) look(longest time.Duration) time.Duration {
	next, stuck := longest, 0
	a.tend()
	if a.dropGone() {
		next = min(next, goneLook)
	}
	for i := range a.calls {
		c := &a.calls[i]
		until := c.until.Load()
		if until > 0 {
			if left := time.Duration(until - now()); left > 0 {
				next = min(next, max(left, shortestLook), goneLook)
				if until == c.seen {
					a.forsake(c, until)
				}
				c.seen = until
				continue
			}
			a.notice(c, until)
		}
		left, isStuck := a.press(c)
		if left > 0 {
			next = min(next, left)
		}
		if isStuck {
			stuck++
		}
	}
	if stuck >= a.runners.Size() && !a.Ready() {
		a.Permits.Refuse()
		a.runners.Refuse()
	}
	return next
}

// notice gives up the run that is due at until, unless it has ended.
func (a *API) notice(c *call, until int64) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if !c.until.CompareAndSwap(until, overdue) {
		return
	}
	c.noticed = time.Now()
	a.runners.GiveUp(&c.job)
}

// press answers the client of a run that was told to stop and has not. left is when to
// look at that run again, 0 if there is none; stuck: it has been given up.
func (a *API) press(c *call) (left time.Duration, stuck bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.until.Load() != overdue { // under the lock it stays what it is
		return 0, false
	}
	if c.answered {
		return urgentLook, true
	}
	if a.stoppable {
		grace := min(max(c.limit.Duration/8, shortestGrace), longestGrace)
		if left := grace - time.Since(c.noticed); left > 0 {
			return left, false
		}
	}
	c.answered = true
	if c.gone { // there is nobody to answer
		return urgentLook, true
	}
	var end func(answer []byte)
	if end, c.cut = accept.Cut(c.ctx.Conn()); c.cut {
		a.Dropped(ExpiredRunning)
		a.Answered(fasthttp.StatusGatewayTimeout, time.Duration(now()-c.start))
		end(a.lateAnswer(c))
	}
	a.Log.Warn("run outlasts the request clock and cannot be stopped", "model", c.model.Name, "version", c.model.Version,
		"clock", c.limit.of, "limit", c.limit.String(), "answered", c.cut)
	return urgentLook, true
}

// lateAnswer is all of the response to c's request.
func (a *API) lateAnswer(c *call) []byte {
	var r fasthttp.Response
	err := lateError(c.model, c.limit)
	r.SetStatusCode(status(err))
	r.Header.SetServer(serverName)
	r.Header.SetContentType(contentType)
	a.identify(c.ctx, &r) // the holder is in the run: nobody else uses ctx
	r.SetConnectionClose()
	if c.detailed {
		r.SetBodyRaw(codec.AppendDetailText(nil, err.Error()))
	} else {
		r.SetBodyRaw(codec.AppendError(nil, err.Error()))
	}
	return []byte(r.String())
}
