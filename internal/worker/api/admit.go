package api

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/batch"
	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/peer"
)

// admit takes a permit for a request of x's model whose body, decompressed, is body, and
// which is the holder's until run or release gives it back. The beginning of body is JSON,
// that of a protocol with a timeout of its own: timed; nil: there is none.
func (a *API) admit(ctx *fasthttp.RequestCtx, x *exchange, body, timed []byte) (err error) {
	x.limit = a.timeout(x.model)
	if err := deadline(&ctx.Request.Header, &x.limit); err != nil {
		return err
	}
	x.asked = now()
	claim := admission.Claim{Cost: x.state.Expect(), Bytes: int64(len(body)), Who: ctx.Conn()}
	got := accept.Arrived(ctx.Conn())
	if got.Queued {
		x.asked = x.start
		x.limit.narrow(codec.Timeout(timed), timeoutParameter)
	}
	permit, err := a.came(ctx.Conn(), got, claim.Cost, x.limit.end(x.start))
	x.over = got.Queued && err != nil && err != errNoPermit
	if err == errNoPermit {
		permit, err = a.Permits.Acquire(claim)
	}
	if errors.Is(err, admission.ErrTimeout) && x.limit.Duration > 0 && !x.over { // without a limit of time nobody waits
		// How long it may wait is looked up only where it has to.
		x.limit.narrow(codec.Timeout(timed), timeoutParameter)
		claim.Wait = time.Duration(x.limit.end(x.start) - now())
		permit, err = a.Permits.Acquire(claim)
		if err == nil {
			if err = stillWanted(ctx.Conn(), claim.Cost, x.limit.end(x.start)); err != nil {
				a.Permits.Release(permit)
			}
		}
	}
	if err != nil {
		return a.refused(x, err)
	}
	x.permit, x.holds = permit, true
	x.admitted = now()
	return nil
}

// errNoPermit is of a request that has come without a permit.
var errNoPermit = errors.New("no permit has come with the request")

// came returns the permit that has come with a request, which is expected to take cost and is to end
// then, or why it does not run.
func (a *API) came(c net.Conn, got accept.Arrival, cost time.Duration, end int64) (admission.Permit, error) {
	permit := admission.Permit(got.Permit)
	if got.Permit >= 0 {
		a.Permits.Charge(permit, cost)
	}
	switch {
	case got.Refused != nil:
		return 0, got.Refused
	case got.Queued:
		err := stillWanted(c, cost, end)
		switch {
		case err == nil:
			a.Permits.Stayed()
		case errors.Is(err, admission.ErrGone):
			a.Permits.Left(got.Waited)
		}
		if err != nil {
			if got.Permit >= 0 {
				a.Permits.Release(permit)
			}
			return 0, err
		}
	}
	if got.Permit < 0 {
		return 0, errNoPermit
	}
	return permit, nil
}

// stillWanted returns why a request that has waited for its permit is not run any more: its
// client has gone, or will before a run of that cost can end. nil: it is.
func stillWanted(c net.Conn, cost time.Duration, end int64) error {
	switch {
	case peer.Gone(c):
		return admission.ErrGone
	case end-now() < int64(cost):
		return admission.ErrTimeout
	}
	return nil
}

const timeoutParameter = "parameters.timeout"

// run runs x's model with in, under the permit that admit has taken. It returns when the
// run has ended, also where the client was answered before, or when the inputs have been copied
// into a run for several: until then ctx, its body and x belong to the run, which may read large
// inputs where they lie in the body.
func (a *API) run(ctx *fasthttp.RequestCtx, x *exchange, in []inference.Tensor) (err error) {
	if x.rows, err = batchRows(x.model, in); err != nil {
		return err
	}
	c := &a.calls[x.permit]
	until := c.begin(ctx, x.model, x.start, x.limit)
	j := &c.job
	j.Model, j.In, j.Out, j.Holder = x.state, in, x.out, c
	x.decoded = now()
	defer func() { // the engine may panic
		x.began, x.ran, x.led = j.Began, j.Ended, j.Led
		j.In, j.Out = nil, nil
		if err = c.end(until, err); err == errAnswered {
			ctx.SetUserValue(errAnswered, true) // a panic leaves no error
		}
		x.holds = false
		a.Permits.Release(x.permit)
	}()
	err = a.runners.Do(j)
	if errors.Is(err, batch.ErrRefused) {
		err = a.leaving
	}
	return err
}

// runModel is a run of the model of lead, for n jobs.
func (a *API) runModel(lead *batch.Job, n int, stop inference.Stop, in, out []inference.Tensor) error {
	c, ok := lead.Holder.(*call)
	if !ok { // nobody asks but this worker itself, or a route
		if w, ok := lead.Holder.(*work); ok { // a route
			return w.do()
		}
		return lead.Model.Runner.RunUntil(stop, in, out)
	}
	body := c.ctx.Request.Body()
	if n > 1 {
		body = nil // of which one the worker dies nobody could tell
	}
	if !ofTask(c.ctx) {
		a.Entering(c.model, body)
		defer a.Left()
	}
	if err := a.refusal(c.model); err != nil { // it may have been quarantined while this one waited
		return err
	}
	return lead.Model.Runner.RunUntil(stop, in, out)
}

// gone tells whether the client of a job that is to run has gone while it waited.
func (a *API) gone(j *batch.Job) bool {
	switch h := j.Holder.(type) {
	case *call:
		return peer.Gone(h.ctx.Conn())
	case *work:
		return peer.Gone(h.ctx.Conn())
	}
	return false
}

// Run runs m with in once a permit and a runner are free, for nobody's request, within that
// time.
func (a *API) Run(m *repository.Model, in, out []inference.Tensor, within time.Duration) error {
	permit, err := a.Permits.Acquire(admission.Claim{Wait: within})
	if err != nil {
		return err
	}
	defer a.Permits.Release(permit)
	return a.runners.Do(&batch.Job{Model: &batch.Model{Runner: m}, In: in, Out: out})
}

// overload is the error of a request that is refused because too much waits.
type overload struct {
	text  string
	cause error
	retry time.Duration // when it may be worth trying again
	layer Layer         // that has too much
}

func (o *overload) Error() string { return o.text }
func (o *overload) Unwrap() error { return o.cause }

// refused describes why Acquire gave x no permit.
func (a *API) refused(x *exchange, err error) error {
	return a.refusedOn(Compute, x.state.Expect(), &x.limit, err)
}

// refusedOn describes why a request that is expected to take cost got no place on l.
func (a *API) refusedOn(l Layer, cost time.Duration, limit *timeLimit, err error) error {
	expected := a.places[l].Expected()
	say := func(format string, args ...any) error {
		retry := max(expected.Truncate(time.Second)+time.Second, time.Second)
		text := fmt.Sprintf(format, args...)
		return &overload{fmt.Sprintf("%s: try again in %s", text, retry), err, retry, l}
	}
	wait := expected.Round(time.Millisecond)
	switch {
	case errors.Is(err, admission.ErrTimeout):
		return limit.busy()
	case errors.Is(err, admission.ErrRefused):
		return a.leaving
	case errors.Is(err, admission.ErrGone):
		return errGone
	case errors.Is(err, admission.ErrFull):
		return say("as many requests wait as may (queue.max_requests)")
	case errors.Is(err, admission.ErrHeavy):
		return say("the requests that wait hold as many bytes as they may (queue.max_bytes)")
	case errors.Is(err, admission.ErrSlow):
		return say("a request would wait for %s, which is longer than it may (queue.max_wait) or than clients have waited lately", wait)
	case errors.Is(err, admission.ErrLate):
		return say("a request would wait for %s and then take %s, which is too long for %s (%s)",
			wait, cost.Round(time.Millisecond), limit.Duration, limit.of)
	}
	return err
}
