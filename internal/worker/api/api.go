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
	// RequestTimeout is how long a request waits for a permit before it is answered
	// with 504; 0: not at all.
	RequestTimeout time.Duration
	// WorkerHeader is the value of X-Preforkd-Worker in each answer; empty: none.
	WorkerHeader string
	// Log gets a record when a handler panics; nil: nowhere.
	Log *slog.Logger
	// Ready tells whether this worker may take traffic; nil: always.
	Ready func() bool
}

// API answers requests.
type API struct {
	Options
	exchanges sync.Pool // of *exchange
	busy      error
	page      page
}

// exchange is what one request needs while it is served.
type exchange struct {
	infer   codec.InferRequest
	predict codec.PredictRequest
	out     []inference.Tensor
}

// New returns an API. It starts nothing.
func New(o Options) *API {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	a := &API{Options: o, busy: busyError(o.RequestTimeout)}
	a.exchanges.New = func() any { return new(exchange) }
	a.page = a.render()
	return a
}

// Handle answers one request.
func (a *API) Handle(ctx *fasthttp.RequestCtx) {
	defer a.finish(ctx)
	if a.WorkerHeader != "" {
		ctx.Response.Header.Set("X-Preforkd-Worker", a.WorkerHeader)
	}
	if err := a.route(ctx); err != nil {
		a.fail(ctx, err)
	}
}

// finish ends a request: after a panic, which is our bug and no reason to end the
// worker, with status 500 and the connection.
func (a *API) finish(ctx *fasthttp.RequestCtx) {
	if p := recover(); p != nil {
		a.Log.Error("handler panicked", "err", p, "stack", string(debug.Stack()))
		ctx.Response.Reset()
		ctx.SetConnectionClose()
		a.fail(ctx, errBug)
	}
	ctx.Request.ReleaseBody(keepBytes)
}

// sendJSON answers with body, which was made in the response's own buffer.
func sendJSON(ctx *fasthttp.RequestCtx, body []byte) {
	ctx.SetContentType("application/json")
	if cap(body) > keepBytes {
		ctx.Response.SetBodyRaw(body) // not kept with the connection
		return
	}
	ctx.Response.SwapBody(body)
}
