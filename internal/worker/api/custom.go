package api

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/batch"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/lab"
	"preforkd/internal/worker/peer"
)

// Route is a path that the operator has added. What it does is the one of Lab and Steps that there
// is.
type Route struct {
	Path  string
	Layer Layer
	Class string // of paths, by its name in package ipc
	Lab   *Lab

	Proxy    *Proxy
	Features *Features
	CORS     *CORS // nil: only pages of the same origin may use it
	Steps    []Step
}

// Lab is what a route of the lab does.
type Lab struct {
	Kind lab.Kind
	Time time.Duration
}

// route is a Route, and what is known of it.
type route struct {
	Route
	class  class
	called atomic.Bool // by its name, as being on the wrong layer
	model  batch.Model // how long it takes; on Compute its runs

	slots  *admission.Permits // of a route that waits for another service
	feed   atomic.Pointer[feed]
	fields map[string]int // of Features, by their index
	cors   *cors
	plan   atomic.Pointer[plan]
}

// work is one request to a route.
type work struct {
	ctx   *fasthttp.RequestCtx
	route *route
	start int64
	limit timeLimit
	place admission.Permit
	trace lab.Trace
}

// newRoutes returns routes by path. A class that there is not asks for the token of inference.
func newRoutes(list []Route) map[string]*route {
	if len(list) == 0 {
		return nil
	}
	routes := make(map[string]*route, len(list))
	for _, r := range list {
		own := &route{Route: r, class: inferClass, cors: newCORS(r.CORS)}
		if r.Features != nil {
			own.fields = placesOf(r.Features.Fields)
		}
		for c, name := range classNames {
			if name != "" && name == r.Class {
				own.class = class(c)
			}
		}
		routes[r.Path] = own
	}
	return routes
}

// locate is locate for this service, with the operator's routes. They have no escapes.
func (a *API) locate(path []byte) target {
	t := locate(path)
	if t.endpoint == nowhere {
		if r := a.routes[string(path)]; r != nil {
			return target{endpoint: custom, route: r}
		}
	}
	return t
}

// OwnPaths are the templates of the paths that every worker answers, which no route may have.
func OwnPaths() (paths []string) {
	for e := range operations {
		paths = append(paths, operations[e].paths...)
	}
	return paths
}

// classOf is who may ask for a path.
func (a *API) classOf(path []byte) class {
	t := a.locate(path)
	return t.class()
}

// custom answers a request to a route.
func (a *API) custom(ctx *fasthttp.RequestCtx, t target) error {
	switch {
	case t.route.Proxy != nil:
		return a.proxy(ctx, t)
	case t.route.Features != nil:
		return a.score(ctx, t)
	case len(t.route.Steps) > 0:
		return a.walk(ctx, t)
	}
	w := work{ctx: ctx, route: t.route, start: t.start, limit: timeLimit{a.RequestTimeout, "timeouts.request"}}
	if err := deadline(&ctx.Request.Header, &w.limit); err != nil {
		return err
	}
	if err := a.enter(&w); err != nil {
		return err
	}
	err := func() error {
		defer a.leave(&w)
		if w.route.Layer == Compute {
			return a.onRunner(&w)
		}
		return w.do()
	}()
	if err != nil {
		return err
	}
	if w.route.Layer != Compute { // whose runners have learned it
		w.route.model.Learn(w.trace.Took(), 1)
	}
	if why := misplaced(w.route.Layer, &w.trace); why != "" && w.route.called.CompareAndSwap(false, true) {
		a.Misplaced(w.route.Path, "route "+w.route.Path+" "+why)
	}
	sendJSON(ctx, w.appendAnswer(ctx.Response.SwapBody(nil)[:0]))
	return nil
}

// do does what the route is for.
func (w *work) do() (err error) {
	w.trace, err = lab.Spend(w.route.Lab.Kind, w.route.Lab.Time, w.stop)
	return err
}

// onRunner is do where models run: one at a time for each runner.
func (a *API) onRunner(w *work) error {
	err := a.runners.Do(&batch.Job{Model: &w.route.model, Holder: w})
	switch {
	case errors.Is(err, batch.ErrRefused):
		return a.leaving
	case errors.Is(err, batch.ErrGone):
		return errGone
	}
	return err
}

// stop says why a request ends early: its time is over, or nobody waits for it.
func (w *work) stop() error {
	if now() >= w.limit.end(w.start) {
		return describe(inference.ErrStopped, "route %s gave no answer within %s, which is %s", w.route.Path, w.limit.of, w.limit.Duration)
	}
	if peer.Gone(w.ctx.Conn()) {
		return errForsaken
	}
	return nil
}

// From when on what a request did says something of its layer.
const (
	shortestWait  = 20 * time.Millisecond
	heavyCPU      = 50 * time.Millisecond
	mostlyPercent = 90
)

// misplaced says why a request is on the wrong layer, and which is right; empty: it is not.
func misplaced(l Layer, t *lab.Trace) string {
	took := t.Took()
	percent := int64(0)
	if took > 0 {
		percent = int64(100 * t.Waited / took)
	}
	waited := took >= shortestWait && percent >= mostlyPercent
	switch {
	case l == Compute && waited:
		return "waited " + strconv.FormatInt(percent, 10) + " % of " + round(took) + " on the compute layer: declare it sync"
	case l == Async && waited && t.Blocked:
		return "blocked a thread for " + strconv.FormatInt(percent, 10) + " % of " + round(took) + " on the async layer: declare it sync"
	case l != Compute && t.Used >= heavyCPU:
		return "used a core for " + round(t.Used) + " of " + round(took) + " on the " + l.String() + " layer: declare it compute"
	}
	return ""
}

func round(d time.Duration) string { return d.Round(time.Millisecond).String() }

// appendAnswer appends what a route of the lab says of a request.
func (w *work) appendAnswer(b []byte) []byte {
	t := &w.trace
	b = append(b, `{"route":`...)
	b = codec.AppendString(b, w.route.Path)
	b = append(b, `,"layer":"`...)
	b = append(b, w.route.Layer.String()...)
	b = append(b, `","began_us":`...)
	b = strconv.AppendInt(b, t.Began.UnixMicro(), 10)
	b = append(b, `,"ended_us":`...)
	b = strconv.AppendInt(b, t.Ended.UnixMicro(), 10)
	b = append(b, `,"waited_us":`...)
	b = strconv.AppendInt(b, t.Waited.Microseconds(), 10)
	b = append(b, `,"used_us":`...)
	b = strconv.AppendInt(b, t.Used.Microseconds(), 10)
	b = append(b, `,"slices_us":[`...)
	for i, s := range t.Slices {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendInt(b, s.Began.UnixMicro(), 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, s.Ended.UnixMicro(), 10)
		b = append(b, ']')
	}
	return append(b, "]}"...)
}
