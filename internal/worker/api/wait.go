package api

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/peer"
	"preforkd/internal/worker/upstream"
)

// Errors of requests that wait for another service.
var (
	errService = errors.New("the service behind the route failed")
	errLate    = errors.New("the service behind the route is late")
	errNoRow   = errors.New("the store has no such row")
)

// wait is one request to a route that waits for another service.
type wait struct {
	work
	slot  admission.Permit
	call  upstream.Call
	index int // in flights

	// What a request is made of; kept with it.
	request upstream.Request
	target  []byte
	lines   []byte
	rows    rows
}

// waits are those that are not in use.
var waits = sync.Pool{New: func() any { return new(wait) }}

// newWait begins the wait of a request that may take so long, or less where its client says so.
func (a *API) newWait(ctx *fasthttp.RequestCtx, t target, limit timeLimit) (*wait, error) {
	w := waits.Get().(*wait)
	w.work = work{ctx: ctx, route: t.route, start: t.start, limit: limit}
	if err := deadline(&ctx.Request.Header, &w.limit); err != nil {
		w.recycle()
		return nil, err
	}
	w.call = upstream.Call{} // of which nobody knows yet
	if w.limit.Duration > 0 {
		w.call.End = epoch.Add(time.Duration(w.limit.end(w.start)))
	}
	return w, nil
}

// recycle keeps w for another request.
func (w *wait) recycle() {
	w.work = work{}
	w.request = upstream.Request{}
	w.rows.trim()
	waits.Put(w)
}

// board takes a place for w: one of its route's own, then one of the layer. The route's are no more
// than the layer's for each of its routes, so that who waits here for a service that hangs keeps
// nobody else from theirs.
func (a *API) board(w *wait) (err error) {
	r := w.route
	claim := admission.Claim{Cost: r.model.Expect(), Who: w.ctx.Conn()}
	lines := r.Layer == Sync && a.Layers.Waiting > 0
	if lines && w.limit.Duration > 0 {
		claim.Wait = time.Duration(w.limit.end(w.start) - now())
	}
	w.slot, err = r.slots.Acquire(claim)
	switch {
	case err == nil:
	case errors.Is(err, admission.ErrTimeout) && !lines, errors.Is(err, admission.ErrFull):
		return a.routeFull(r)
	case errors.Is(err, admission.ErrTimeout):
		return describe(admission.ErrTimeout, "route %s could not start within %s (%s), all its connections are in use", r.Path, w.limit.Duration, w.limit.of)
	default:
		return a.refusedOn(r.Layer, r.model.Expect(), &w.limit, err)
	}
	if err := a.enter(&w.work); err != nil {
		r.slots.Release(w.slot)
		return err
	}
	a.flights.add(w)
	return nil
}

// land gives back what board took.
func (a *API) land(w *wait) {
	a.flights.remove(w)
	a.leave(&w.work)
	w.route.slots.Release(w.slot)
}

// routeFull refuses a request because its route has as many as it may.
func (a *API) routeFull(r *route) error {
	retry := max(r.slots.Expected().Truncate(time.Second)+time.Second, time.Second)
	return &overload{
		"as many requests of route " + r.Path + " are under way as may (connections of the route): try again in " + retry.String(),
		admission.ErrFull, retry, r.Layer,
	}
}

// failure describes why the service behind w's route has not answered, and tells operators.
func (a *API) failure(w *wait, err error) error {
	var e *upstream.Error
	if !errors.As(err, &e) {
		if errors.Is(err, errService) {
			a.Troubled(w.route.Path, err.Error())
		}
		return err
	}
	var out error
	switch {
	case e.Kind == upstream.Aborted:
		return describe(errForsaken, "the client closed its side of the connection before route %s had answered", w.route.Path)
	case e.Kind == upstream.Slow && e.Of != "":
		out = describe(errLate, "the service behind route %s %s within %s (%s)", w.route.Path, e.Text, e.Within, e.Of)
	case e.Kind == upstream.Slow:
		out = describe(errLate, "the service behind route %s %s within %s (%s)", w.route.Path, e.Text, w.limit.Duration, w.limit.of)
	default:
		out = describe(errService, "the service behind route %s %s", w.route.Path, e.Text)
	}
	a.Troubled(w.route.Path, out.Error())
	return out
}

// shares makes the places of each route that waits for others, and the lines of all.
func (a *API) shares() {
	routes := [Layers]int{}
	for _, r := range a.routes {
		routes[r.Layer]++
	}
	a.lines = append(a.lines, a.places[:]...)
	for _, r := range a.routes {
		n, waits := r.connections(), 0
		if n < 0 {
			continue
		}
		if n == 0 {
			n = max(a.places[r.Layer].Size()/routes[r.Layer], 1)
		}
		n = min(n, a.places[r.Layer].Size())
		if r.Layer == Sync {
			waits = a.Layers.Waiting
		}
		r.slots = admission.New(admission.Options{Limit: n, MaxWaiting: waits})
		a.lines = append(a.lines, r.slots)
	}
}

// connections is how many requests to r may wait at once; 0: a share of the layer's; -1: it does not
// wait for another service.
func (r *route) connections() int {
	switch {
	case r.Proxy != nil:
		return r.Proxy.Connections
	case r.Features != nil:
		return r.Features.Connections
	}
	return -1
}

// sweep closes connections to other services that have been idle for too long.
func (a *API) sweep(at time.Time) {
	for _, r := range a.routes {
		switch {
		case r.Proxy != nil:
			r.Proxy.Service.Sweep(at)
		case r.Features != nil && r.Features.Redis != nil:
			r.Features.Redis.Sweep(at)
		case r.Features != nil:
			r.Features.HTTP.Sweep(at)
		}
	}
}

// flights are the requests that wait for another service.
type flights struct {
	mu    sync.Mutex // guards what follows, and index of each wait
	all   []*wait
	peers peer.Watch
}

func (f *flights) add(w *wait) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.index = len(f.all)
	f.all = append(f.all, w)
}

func (f *flights) remove(w *wait) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := len(f.all) - 1
	f.all[w.index] = f.all[last]
	f.all[w.index].index = w.index
	f.all[last] = nil
	f.all = f.all[:last]
}

// look ends the waits whose clients have gone.
func (f *flights) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers.Reset()
	for _, w := range f.all {
		f.peers.Add(w.ctx.Conn())
	}
	f.peers.Look(func(i int) {
		if peer.Gone(f.all[i].ctx.Conn()) { // its handler cannot leave meanwhile
			f.all[i].call.Abort()
		}
	})
}

// tend sees to what waits for other services. Watch calls it.
func (a *API) tend() {
	if len(a.lines) == int(Layers) { // no route does
		return
	}
	if at := time.Now(); at.Sub(a.tended) >= longestLook {
		a.tended = at
		a.flights.look()
		a.sweep(at)
	}
}

// asPeer is who asks, as other services are told; empty: nobody with an address.
func asPeer(addr net.Addr) string {
	if _, ok := addr.(*net.TCPAddr); !ok {
		return ""
	}
	return hostOf(addr)
}

// trim frees what is too large to be kept, and returns how much.
func (r *rows) trim() (freed int) {
	for _, b := range []*[]byte{&r.text, &r.body} {
		if n := cap(*b); n > keepBytes {
			*b, freed = nil, freed+n
		}
	}
	return freed + r.keys.Trim(keepBytes)
}
