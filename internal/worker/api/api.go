package api

import (
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
)

// keepBytes is how large a buffer may be and still be kept for the next request. It
// holds the JSON of some 60,000 numbers; what is larger is left to the collector, so
// that one large request does not grow the worker for ever.
const keepBytes = 1 << 20

// Options is what an API is made of. Models and Permits are required.
type Options struct {
	Models  *repository.Repository
	Permits *admission.Permits
	// Default names the model of POST /predict; empty: the first by name.
	Default string
	// Version is the server's.
	Version string
	// RequestTimeout is how long a request may take before it is answered with 504,
	// waiting for a permit included; 0: it does not wait, and runs as long as it does.
	RequestTimeout time.Duration
	// WorkerHeader is the value of X-Preforkd-Worker in each answer; empty: none.
	WorkerHeader string
	// Began is called when a request has been read, Answered when its answer is known
	// and before that is sent, once for each; nil: neither.
	Began    func()
	Answered func(status int, took time.Duration)
	// Refusal says why a model's requests are refused for now; empty: they are not. It is
	// called before a request's body is read and once more, after Entering, before the
	// model runs; nil: no model is refused.
	Refusal func(m *repository.Model) string
	// Entering is called when m is about to run for a request with that body, Left when it
	// has run; nil: neither.
	Entering func(m *repository.Model, body []byte)
	Left     func()
	// Served is called for each request that a model has answered, or not, when its answer is
	// known; nil: nobody counts. Stats returns what was counted, of the whole service.
	Served func(m *repository.Model, s Served)
	Stats  func(m *repository.Model) Stats
	// Log gets a record when a handler panics or a run outlasts its time; nil: nowhere.
	Log *slog.Logger
	// Ready is true until this worker leaves; nil: always.
	Ready func() bool
	// Closing tells whether the service is about to stop, while this worker serves on: it
	// says that it is not ready, and each answer closes its connection; nil: never. It is
	// asked with each request, so it must cost nothing.
	Closing func() bool
}

// API answers requests.
type API struct {
	Options
	exchanges     sync.Pool // of *exchange
	busy, leaving error
	calls         []call        // by permit
	shortest      time.Duration // that a request of some model may take
	narrowed      bool          // some model has a limit of its own for bodies
	page          page
	limits        ServerOptions // of the server; zero without one
	documents     func() *documents
	abandoned     abandoned // by large requests: see tidy
}

// exchange is what one request needs while it is served.
type exchange struct {
	infer   codec.InferRequest
	predict codec.PredictRequest
	serving codec.ServingRequest
	in, out []inference.Tensor // in: where predict's one input is not all

	model  *repository.Model
	times         // of the request
	timing []byte // both, as Server-Timing
	packed []byte // the answer, compressed
}

// New returns an API. It starts nothing.
func New(o Options) *API {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	if o.Closing == nil {
		o.Closing = func() bool { return false }
	}
	if o.Began == nil {
		o.Began = func() {}
	}
	if o.Answered == nil {
		o.Answered = func(int, time.Duration) {}
	}
	if o.Refusal == nil {
		o.Refusal = func(*repository.Model) string { return "" }
	}
	if o.Entering == nil {
		o.Entering, o.Left = func(*repository.Model, []byte) {}, func() {}
	}
	if o.Served == nil {
		o.Served = func(*repository.Model, Served) {}
	}
	if o.Stats == nil {
		o.Stats = func(*repository.Model) Stats { return Stats{} }
	}
	a := &API{Options: o, busy: busyError(o.RequestTimeout), leaving: leavingError(), calls: make([]call, o.Permits.Size())}
	for i := range a.calls {
		stop, err := o.Models.NewStop()
		if err != nil {
			o.Log.Warn("runs cannot be told to stop", "err", err) // they are given up all the same
			continue
		}
		a.calls[i].stop = stop
	}
	a.survey()
	a.exchanges.New = func() any { return new(exchange) }
	a.page = a.render()
	a.documents = sync.OnceValue(a.describe)
	return a
}

// Handle answers one request.
func (a *API) Handle(ctx *fasthttp.RequestCtx) {
	start, counted := now(), false
	defer a.finish(ctx, start, &counted)
	a.Began()
	a.identify(ctx, &ctx.Response)
	switch err := a.route(ctx, start); {
	case err == errAnswered:
		counted = true
		ctx.SetConnectionClose() // nobody reads this answer
	case err != nil:
		a.fail(ctx, err)
	}
}

// What each answer has.
const (
	serverName   = "preforkd"
	workerHeader = "X-Preforkd-Worker"
	contentType  = "application/json"
	binaryType   = "application/octet-stream"
)

// finish ends a request: after a panic, which is our bug and no reason to end the
// worker, with status 500 and the connection.
func (a *API) finish(ctx *fasthttp.RequestCtx, start int64, counted *bool) {
	if p := recover(); p != nil {
		a.Log.Error("handler panicked", "err", p, "stack", string(debug.Stack()))
		ctx.Response.Reset()
		ctx.SetConnectionClose()
		a.fail(ctx, errBug)
		*counted = ctx.UserValue(errAnswered) != nil
	}
	if a.Closing() { // asked last: what took long is answered like what came late
		ctx.SetConnectionClose()
	}
	a.abandon(cap(ctx.Request.Body()))
	ctx.Request.ReleaseBody(keepBytes)
	if !*counted {
		a.Answered(ctx.Response.StatusCode(), time.Duration(now()-start))
	}
}

// identify sets the headers that say who answers which request: this worker, and what the
// client sent to find it again.
func (a *API) identify(ctx *fasthttp.RequestCtx, r *fasthttp.Response) {
	if a.WorkerHeader != "" {
		r.Header.Set(workerHeader, a.WorkerHeader)
	}
	for _, name := range [...]string{"X-Request-Id", "Traceparent"} { // W3C Trace Context
		if v := ctx.Request.Header.Peek(name); len(v) > 0 {
			r.Header.SetBytesV(name, v)
		}
	}
}

// sendJSON answers with body, which was made in the response's own buffer.
func sendJSON(ctx *fasthttp.RequestCtx, body []byte) {
	ctx.SetContentType(contentType)
	setBody(ctx, body)
}

func setBody(ctx *fasthttp.RequestCtx, body []byte) {
	if cap(body) > keepBytes {
		ctx.Response.SetBodyRaw(body) // not kept with the connection
		return
	}
	ctx.Response.SwapBody(body)
}
