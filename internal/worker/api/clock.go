package api

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
)

// call is what one permit's holder does, seen by Watch. The holder writes until and the
// fields above lock with nothing but two atomic operations; the races are in
// docs/internals/request-clock.md.
type call struct {
	// until is when the run in progress ends by the request clock, since epoch: never
	// 0. idle: there is none. overdue: Watch has taken notice, and the holder goes
	// through lock to leave.
	until atomic.Int64

	ctx   *fasthttp.RequestCtx
	model *repository.Model
	start int64 // when the request began, since epoch
	stop  inference.Stop

	detailed bool // its errors have FastAPI's form

	lock     sync.Mutex
	noticed  time.Time // when Watch took notice
	answered bool      // by Watch; or it has tried, and never tries again
	cut      bool      // the client has its answer

	_ [64]byte // the next permit's line
}

const (
	idle    = 0
	overdue = -1
)

// errAnswered is the error of a request whose client has been answered meanwhile.
var errAnswered = errors.New("answered by the request clock")

// epoch makes an instant on the monotonic clock fit into a word.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// begin notes that the holder of c's permit runs m for ctx.
func (c *call) begin(ctx *fasthttp.RequestCtx, m *repository.Model, start int64, limit time.Duration) (until int64) {
	c.ctx, c.model, c.start, c.detailed = ctx, m, start, inDetail(ctx)
	until = start + int64(limit)
	c.until.Store(until)
	return until
}

// end notes that the run begun with until has ended with err, and returns what the
// request ends with.
func (c *call) end(until int64, err error) error {
	if c.until.CompareAndSwap(until, idle) {
		return err
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	cut := c.cut
	c.cut, c.answered = false, false
	if c.stop != nil {
		c.stop.Clear()
	}
	c.until.Store(idle)
	switch {
	case cut:
		return errAnswered
	case errors.Is(err, inference.ErrStopped):
		return lateError(c.model, time.Duration(until-c.start))
	}
	return err
}

// lateError is what a request ends with whose model took too long.
func lateError(m *repository.Model, limit time.Duration) error {
	return describe(inference.ErrStopped, "model %q gave no answer within %s, which is %s", m.Name, clockOf(m, limit), limit)
}

// How Watch divides time. It looks often enough to be late by an eighth of the limit at
// most, and after a run that it has told to stop.
const (
	shortestLook  = time.Millisecond
	longestLook   = time.Second
	urgentLook    = 50 * time.Millisecond  // while a call is overdue
	shortestGrace = 5 * time.Millisecond   // for the operator under way: an eighth of the limit,
	longestGrace  = 250 * time.Millisecond // but not less and not more than these
)

// Watch is the request clock of runs, which are calls into native code that nobody can
// leave: a run that lasts until its request's time is over is told to stop, and if that
// does not end it shortly after, its client is answered all the same. It returns when
// ctx has ended. One goroutine calls it, at most once.
//
// In a worker that leaves (Ready is false) and whose permits are all held by such runs
// nobody waits for one any more.
func (a *API) Watch(ctx context.Context) {
	if a.RequestTimeout <= 0 {
		return
	}
	look := min(max(a.shortest/8, shortestLook), longestLook)
	timer := time.NewTimer(look)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(a.look(look))
	}
}

// look sees to every call and returns when to look again: at the latest after longest.
func (a *API) look(longest time.Duration) time.Duration {
	next, stuck := longest, 0
	for i := range a.calls {
		c := &a.calls[i]
		until := c.until.Load()
		if until > 0 {
			if left := time.Duration(until - now()); left > 0 {
				next = min(next, max(left, shortestLook))
				continue
			}
			c.notice(until)
		}
		left, isStuck := a.press(c)
		if left > 0 {
			next = min(next, left)
		}
		if isStuck {
			stuck++
		}
	}
	if stuck == len(a.calls) && !a.Ready() {
		a.Permits.Refuse()
	}
	return next
}

// notice tells the run that is due at until to stop, unless it has ended.
func (c *call) notice(until int64) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if !c.until.CompareAndSwap(until, overdue) {
		return
	}
	c.noticed = time.Now()
	if c.stop != nil {
		c.stop.Set()
	}
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
	limit := a.timeout(c.model)
	if c.stop != nil {
		grace := min(max(limit/8, shortestGrace), longestGrace)
		if left := grace - time.Since(c.noticed); left > 0 {
			return left, false
		}
	}
	c.answered = true
	var end func(answer []byte)
	if end, c.cut = accept.Cut(c.ctx.Conn()); c.cut {
		a.Answered(fasthttp.StatusGatewayTimeout, time.Duration(now()-c.start))
		end(a.lateAnswer(c))
	}
	a.Log.Warn("run outlasts the request clock and cannot be stopped", "model", c.model.Name, "version", c.model.Version,
		"clock", clockOf(c.model, limit), "limit", limit.String(), "answered", c.cut)
	return urgentLook, true
}

// lateAnswer is all of the response to c's request.
func (a *API) lateAnswer(c *call) []byte {
	var r fasthttp.Response
	err := lateError(c.model, a.timeout(c.model))
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

// run runs m under a permit, with x's outputs, for a request that began at start. It
// returns when the run has ended, also where the client was answered before: until then ctx,
// its body and x belong to the run, which may read large inputs where they lie in the body.
func (a *API) run(ctx *fasthttp.RequestCtx, m *repository.Model, start int64, x *exchange, in []inference.Tensor) (err error) {
	x.asked = now()
	if x.batch, err = batch(m, in); err != nil {
		return err
	}
	limit := a.timeout(m)
	permit, err := a.Permits.Acquire(limit)
	if err != nil {
		switch {
		case errors.Is(err, admission.ErrTimeout) && limit != a.RequestTimeout:
			return busyError(limit)
		case errors.Is(err, admission.ErrTimeout):
			return a.busy
		case errors.Is(err, admission.ErrRefused):
			return a.leaving
		}
		return err
	}
	c := &a.calls[permit]
	until := c.begin(ctx, m, start, limit)
	a.Entering(m, ctx.Request.Body())
	defer func() { // the engine may panic
		a.Left()
		if err = c.end(until, err); err == errAnswered {
			ctx.SetUserValue(errAnswered, true) // a panic leaves no error
		}
		a.Permits.Release(permit)
	}()
	if err := a.refusal(m); err != nil { // it may have been quarantined while this one waited
		return err
	}
	x.entered = now()
	err = m.RunUntil(c.stop, in, x.out)
	x.ran = now()
	return err
}
