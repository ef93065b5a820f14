package api

import (
	"errors"

	"preforkd/internal/inference"
	"preforkd/internal/worker/admission"
)

// Fate is why no model has answered a request that was good.
type Fate int

// What can become of it.
const (
	RefusedFull    Fate = iota // too many wait, or they hold too much
	RefusedSlow                // those who wait will take too long
	RefusedLate                // it would have been later than the client wants
	ExpiredWaiting             // its time was over before it could run
	ExpiredRunning             // or while it ran
	GoneWaiting                // its client has gone before it could run
	GoneRunning                // or while it ran
)

// fates is the table from an error to a fate: the first entry that err is.
var fates = []struct {
	err  error
	fate Fate
}{
	{admission.ErrFull, RefusedFull},
	{admission.ErrHeavy, RefusedFull},
	{admission.ErrSlow, RefusedSlow},
	{admission.ErrLate, RefusedLate},
	{admission.ErrTimeout, ExpiredWaiting},
	{inference.ErrStopped, ExpiredRunning},
	{errGone, GoneWaiting},
	{errForsaken, GoneRunning},
}

// drop counts a request that ends with err, if that is a fate.
func (a *API) drop(err error) {
	if full := (*overload)(nil); errors.As(err, &full) {
		a.Layers.Refused(full.layer)
	}
	for _, f := range fates {
		if errors.Is(err, f.err) {
			a.Dropped(f.fate)
			return
		}
	}
}
