package api

import (
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/batch"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/helper"
	"preforkd/internal/worker/task"
)

// keepBytes is how large a buffer may be and still be kept for the next request. It
// holds the JSON of some 60,000 numbers; what is larger is left to the collector, so
// that one large request does not grow the worker for ever.
const keepBytes = 1 << 20

// Options is what an API is made of. Models and Permits are required.
type Options struct {
	Models  *repository.Repository
	Permits *admission.Permits
	// Runners is how many models run at once; 0: one.
	Runners int
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
	// Dropped is called for each request that no model has answered because of how much there
	// is to do, or because nobody waits for it; nil: nobody counts.
	Dropped func(f Fate)
	// Unloaded returns the versions that are known and not served; nil: there are none.
	Unloaded func() []ipc.UnloadedModel
	// Control loads or unloads a model in the whole service, and returns when that is done; nil:
	// clients may not, as the setting models.control says, whose value ControlSetting is. The
	// error is an *ipc.Failure where the service refuses.
	Control        func(order ipc.ModelOrder) error
	ControlSetting string
	// Routes are paths that the operator has added, Layers what bounds their requests.
	Routes []Route
	Layers LayerOptions
	// Helpers are the pools of helpers that steps of Routes name.
	Helpers map[string]*helper.Pool
	// Misplaced is told, once for each route, that it is on the wrong layer: of which path, and
	// why; nil: nobody is.
	Misplaced func(path, why string)
	// Troubled is told that the service behind a route has failed: of which path, and how; nil:
	// nobody is.
	Troubled func(path, why string)
	// Tasks is the queue of background tasks; nil: there is none.
	Tasks *task.Queue
	// Log gets a record when a handler panics or a run outlasts its time; nil: nowhere.
	Log *slog.Logger
	// Ready is true until this worker leaves; nil: always.
	Ready func() bool
	// Closing tells whether the service is about to stop, while this worker serves on: it
	// says that it is not ready, and each answer closes its connection; nil: never. It is
	// asked with each request, so it must cost nothing.
	Closing func() bool
	// Tokens are the SHA-256 digests of those that the paths of each class ask for, by the
	// names of package ipc; a class without any asks for none.
	Tokens map[string][][]byte
	// Denied is told of each request that is refused for its token, and for whom it was; it
	// must not block. Nil: nobody is.
	Denied func(class, why, client string)
	// Proxies are the peers that are believed when they say for whom they ask; nil: none.
	Proxies *accept.Proxies
}

// API answers requests.
type API struct {
	Options
	exchanges sync.Pool // of *exchange
	leaving   error
	calls     []call // by permit
	runners   *batch.Runners
	stoppable bool          // runs can be told to stop
	line      line          // Watch's
	limits    ServerOptions // of the server; zero without one
	guard     *guard        // nil: nobody is asked for a token
	view      atomic.Pointer[view]
	abandoned abandoned // by large requests: see tidy
	routes    map[string]*route
	computing bool                       // one of them is on the layer compute
	places    [Layers]*admission.Permits // of Compute they are Permits
	lines     []*admission.Permits       // places, and those of routes
	flights   flights
	tended    time.Time // when tend has looked; Watch's
	journeys  sync.Pool // of *journey
	// descriptions are what helpers say of their models, by pool and model: *description.
	descriptions sync.Map
}

// view is what follows from the models that are served, made once for each set of them.
type view struct {
	shortest  time.Duration // that a request of some model may take
	narrowed  bool          // some model has a limit of its own for bodies
	page      page
	documents func() *documents
}

// exchange is what one request needs while it is served.
type exchange struct {
	infer   codec.InferRequest
	predict codec.PredictRequest
	serving codec.ServingRequest
	in, out []inference.Tensor // in: where predict's one input is not all

	model  *repository.Model
	state  *batch.Model
	limit  timeLimit
	permit admission.Permit
	holds  bool   // the permit
	over   bool   // its time has ended in the queue
	times         // of the request
	timing []byte // as Server-Timing
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
	if o.ControlSetting == "" {
		o.ControlSetting = "none"
	}
	if o.Stats == nil {
		o.Stats = func(*repository.Model) Stats { return Stats{} }
	}
	if o.Dropped == nil {
		o.Dropped = func(Fate) {}
	}
	if o.Troubled == nil {
		o.Troubled = func(string, string) {}
	}
	if o.Misplaced == nil {
		o.Misplaced = func(string, string) {}
	}
	places := newPlaces(&o.Layers, o.Permits)
	a := &API{
		Options: o, leaving: leavingError(), calls: make([]call, o.Permits.Size()), stoppable: true,
		routes: newRoutes(o.Routes), places: places,
		computing: slices.ContainsFunc(o.Routes, func(r Route) bool { return r.Layer == Compute }),
	}
	a.shares()
	stops := make([]inference.Stop, max(o.Runners, 1))
	for i := range stops {
		stop, err := o.Models.NewStop()
		if err != nil {
			o.Log.Warn("runs cannot be told to stop", "err", err) // they are given up all the same
			a.stoppable = false
			continue
		}
		stops[i] = stop
	}
	a.runners = batch.New(batch.Options{Stops: stops, Clock: now, Run: a.runModel, Gone: a.gone})
	a.guard = newGuard(o.Tokens)
	a.Meet(o.Models.Every())
	a.exchanges.New = func() any { return new(exchange) }
	a.journeys.New = func() any { return new(journey) }
	a.Changed()
	return a
}

// Changed is called when Models serves another set, by one goroutine at a time.
func (a *API) Changed() {
	v := &view{page: a.render(), documents: sync.OnceValue(a.describe)}
	a.survey(v)
	a.view.Store(v)
}

// Handle answers one request.
func (a *API) Handle(ctx *fasthttp.RequestCtx) {
	start, counted := now()-int64(accept.Waited(ctx.Conn())), false
	reader := a.Models.Enter()
	defer a.finish(ctx, start, &counted, reader)
	a.Began()
	a.identify(ctx, &ctx.Response)
	switch err := a.route(ctx, start); {
	case err == errAnswered:
		counted = true
		ctx.SetConnectionClose() // nobody reads this answer
	case err != nil:
		a.drop(err)
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
func (a *API) finish(ctx *fasthttp.RequestCtx, start int64, counted *bool, reader repository.Reader) {
	if p := recover(); p != nil {
		a.Log.Error("handler panicked", "err", p, "stack", string(debug.Stack()))
		ctx.Response.Reset()
		ctx.SetConnectionClose()
		a.fail(ctx, errBug)
		*counted = ctx.UserValue(errAnswered) != nil
	}
	// Asked last: what took long is answered like what came late. A connection with TLS
	// cannot go elsewhere when this worker leaves.
	if a.Closing() || ctx.IsTLS() && !a.Ready() {
		ctx.SetConnectionClose()
	}
	a.Models.Leave(reader)
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
