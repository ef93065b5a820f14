package api

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/helper"
)

// journey is one request's way through the steps of its route. It is reused.
type journey struct {
	api   *API
	ctx   *fasthttp.RequestCtx
	route *route
	plan  *plan
	start int64
	limit timeLimit
	body  []byte
	json  int // bytes of body that are JSON, where it is a request of the protocol

	infer   codec.InferRequest
	in, got []inference.Tensor // of the step under way, and what the one before has given
	kind    []byte             // content type of got; empty: not said
	out     []byte             // the request to a helper
	// Those of two steps in turn: what one has given is read while the next is asked.
	answers   [2]helper.Answer
	read      [2]codec.Answer
	exchanges []*exchange // of models, whose outputs are in use
	took      []time.Duration
	timing    []byte // as Server-Timing
}

// until is when the request is over; zero: never.
func (j *journey) until() time.Time {
	if j.limit.Duration <= 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(j.limit.end(j.start)))
}

// walk answers a request to a route of steps.
func (a *API) walk(ctx *fasthttp.RequestCtx, t target) error {
	if !ctx.IsPost() {
		ctx.Response.Header.Set("Allow", postOnly)
		return errMethod
	}
	j := a.journeys.Get().(*journey)
	defer a.arrive(j)
	j.api, j.ctx, j.route, j.start, j.limit = a, ctx, t.route, t.start, timeLimit{a.RequestTimeout, "timeouts.request"}
	j.json, j.infer.Timeout = 0, 0
	if err := deadline(&ctx.Request.Header, &j.limit); err != nil {
		return err
	}
	var err error
	if j.plan, err = a.planOf(t.route, j.limit, j.until()); err != nil {
		return err
	}
	if j.body, err = a.content(ctx); err != nil {
		return err
	}
	if !j.plan.raw {
		if j.json, err = jsonLength(ctx, len(j.body)); err != nil {
			return err
		}
		if j.plan.steps[0].model == nil {
			if err := j.decode(); err != nil {
				return err
			}
		}
	}
	for i := range j.plan.steps {
		began := now()
		if err := j.arrange(i); err != nil {
			return err
		}
		if j.plan.steps[i].model != nil {
			err = j.run(i)
		} else {
			err = j.ask(i)
		}
		if err != nil {
			return err
		}
		j.took = append(j.took, time.Duration(now()-began))
	}
	return j.answer()
}

// arrive gives j back.
func (a *API) arrive(j *journey) {
	for _, x := range j.exchanges {
		a.release(x)
	}
	clear(j.exchanges)
	clear(j.in)
	freed := j.infer.Trim(keepBytes)
	for i := range j.answers {
		freed += j.read[i].Trim(keepBytes)
		j.answers[i].Trim()
	}
	if cap(j.out) > keepBytes {
		freed += cap(j.out)
		j.out = nil
	}
	a.abandon(freed)
	j.ctx, j.route, j.plan, j.body, j.got, j.kind = nil, nil, nil, nil, nil, nil
	j.in, j.exchanges, j.took = j.in[:0], j.exchanges[:0], j.took[:0]
	a.journeys.Put(j)
}

// decode reads the body as a request of the protocol for the first step, which asks for outputs of
// the last.
func (j *journey) decode() error {
	steps := j.plan.steps
	if err := j.infer.DecodeBinary(j.body, j.json, steps[0].in, steps[len(steps)-1].out); err != nil {
		return err
	}
	j.limit.narrow(j.infer.Timeout, timeoutParameter)
	return nil
}

// arrange makes in the inputs of step i. What they are is known for sure only by now, where sizes
// are open.
func (j *journey) arrange(i int) error {
	if i == 0 {
		j.in = append(j.in[:0], j.infer.Inputs...)
		if j.plan.raw || j.plan.steps[0].model != nil { // or not decoded yet
			j.in = j.in[:0]
		}
		return nil
	}
	at := &j.plan.steps[i]
	j.in = j.in[:0]
	for k, from := range at.from {
		if from < 0 {
			j.in = append(j.in, inference.Tensor{})
			continue
		}
		t := j.got[from]
		t.Name = at.in[k].Name
		if err := at.in[k].Check(t.DataType, t.Shape); err != nil {
			return describe(errHelper, "%s gave what %s does not take: %v", &j.route.Steps[i-1], &j.route.Steps[i], err)
		}
		j.in = append(j.in, t)
	}
	return nil
}

// run runs the model of step i, under a permit.
func (j *journey) run(i int) error {
	a, m := j.api, j.plan.steps[i].model
	if err := a.refusal(m); err != nil {
		return err
	}
	began := now()
	x := a.acquire(m, j.start)
	j.exchanges = append(j.exchanges, x)
	first := i == 0
	var body, timed []byte
	if first {
		body, timed = j.body, j.body[:j.json]
	}
	if err := a.admit(j.ctx, x, body, timed); err != nil {
		return err
	}
	if first {
		if err := j.decode(); err != nil {
			return err
		}
		j.in = append(j.in[:0], j.infer.Inputs...)
	}
	x.limit.narrow(j.infer.Timeout, timeoutParameter)
	if err := a.run(j.ctx, x, j.in); err != nil {
		return err
	}
	x.start, x.sent = began, true // what it took is this model's, not that of the steps before
	j.got, j.kind = x.out, nil
	return nil
}

// answer sends what the last step has given.
func (j *journey) answer() error {
	ctx, last := j.ctx, &j.route.Steps[len(j.route.Steps)-1]
	timing := j.timing[:0]
	for i, took := range j.took {
		if i > 0 {
			timing = append(timing, ", "...)
		}
		timing = append(append(timing, 's'), strconv.Itoa(i)...)
		timing = append(append(append(timing, `;desc="`...), j.route.Steps[i].String()...), `";dur=`...)
		timing = appendMilliseconds(timing, took)
	}
	j.timing = timing
	h := &ctx.Response.Header
	b := ctx.Response.SwapBody(nil)[:0]
	if j.plan.bare {
		if j.got[0].Len() != 1 {
			setBody(ctx, b)
			return describe(errHelper, "%s gave %d strings, and one is the answer", last, j.got[0].Len())
		}
		h.SetContentType(binaryType)
		if len(j.kind) > 0 {
			h.SetContentTypeBytes(j.kind)
		}
		h.SetBytesV("Server-Timing", timing)
		setBody(ctx, append(b, j.got[0].Text(0)...))
		return nil
	}
	if j.plan.raw {
		j.infer.AllOutputs(len(j.got))
	}
	version := "1"
	if m := j.plan.steps[len(j.plan.steps)-1].model; m != nil {
		version = m.Version
	}
	b, header, err := j.infer.AppendResponse(b, last.Model, version, j.got)
	if err != nil {
		sendJSON(ctx, b)
		return err
	}
	h.SetContentType(contentType)
	if header > 0 {
		h.SetContentType(binaryType)
		h.Set(headerLength, strconv.Itoa(header))
	}
	h.SetBytesV("Server-Timing", timing)
	setBody(ctx, b)
	return nil
}
