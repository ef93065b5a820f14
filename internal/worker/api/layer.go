package api

import (
	"errors"
	"fmt"
	"time"

	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
)

// Layer is where a request does its work.
type Layer int

// The layers. Inference is on Compute.
const (
	Async   Layer = iota // it waits, on its connection's goroutine
	Sync                 // it blocks a thread: so many at once
	Compute              // it uses a core, under a permit
	Layers               // number of the above
)

var layerNames = [Layers]string{"async", "sync", "compute"}

// String returns what the setting calls l.
func (l Layer) String() string { return layerNames[l] }

// LayerOptions are the bounds of the layers of routes. Compute's are those of Options.Permits.
type LayerOptions struct {
	Async int // requests at once; 0: no bound worth mentioning
	Sync  int // those that run at once; 0: likewise
	// Waiting is how many more may wait for Sync; 0: none.
	Waiting int
	// Observe is told how many run and wait on Async or Sync whenever that changes, one call at a
	// time for each; it must not call back. Refused is told of each request that is refused on
	// any layer. nil: nobody is.
	Observe func(l Layer, running, waiting int)
	Refused func(l Layer)
}

// manyPlaces is where nobody has said how many.
const manyPlaces = 1000

// newPlaces makes what bounds each layer.
func newPlaces(o *LayerOptions, permits *admission.Permits) (places [Layers]*admission.Permits) {
	if o.Observe == nil {
		o.Observe = func(Layer, int, int) {}
	}
	if o.Refused == nil {
		o.Refused = func(Layer) {}
	}
	line := func(l Layer, limit, waiting int) *admission.Permits {
		if limit == 0 {
			limit = manyPlaces
		}
		return admission.New(admission.Options{Limit: limit, MaxWaiting: waiting, Observe: func(inUse, waits int) { o.Observe(l, inUse, waits) }})
	}
	places[Async], places[Sync], places[Compute] = line(Async, o.Async, 0), line(Sync, o.Sync, o.Waiting), permits
	return places
}

// enter takes a place on r's layer for w, which waits for it where the layer has a line.
func (a *API) enter(w *work) error {
	l, claim := w.route.Layer, admission.Claim{Cost: w.route.model.Expect(), Who: w.ctx.Conn()}
	waits := l == Compute || l == Sync && a.Layers.Waiting > 0
	if waits && w.limit.Duration > 0 { // without a limit of time nobody waits
		claim.Wait = time.Duration(w.limit.end(w.start) - now())
	}
	place, err := admission.Permit(0), errNoPermit
	if l == Compute {
		place, err = a.came(w.ctx.Conn(), accept.Arrived(w.ctx.Conn()), claim.Cost, w.limit.end(w.start))
	}
	if err == errNoPermit {
		place, err = a.places[l].Acquire(claim)
	}
	switch {
	case err == nil:
		w.place = place
		return nil
	case errors.Is(err, admission.ErrTimeout) && !waits, errors.Is(err, admission.ErrFull) && l != Compute:
		return a.layerFull(l)
	case errors.Is(err, admission.ErrTimeout):
		return describe(admission.ErrTimeout, "route %s could not start within %s (%s), all places of the %s layer are taken", w.route.Path, w.limit.Duration, w.limit.of, l)
	}
	return a.refusedOn(l, w.route.model.Expect(), &w.limit, err)
}

// leave gives back what enter took.
func (a *API) leave(w *work) { a.places[w.route.Layer].Release(w.place) }

// layerFull refuses a request because its layer has as many as it may.
func (a *API) layerFull(l Layer) error {
	retry := max(a.places[l].Expected().Truncate(time.Second)+time.Second, time.Second)
	return &overload{fmt.Sprintf("as many requests are on the %s layer as may (layers.%s.max): try again in %s", l, l, retry), admission.ErrFull, retry, l}
}
