package admission

import (
	"errors"
	"time"
)

// Errors of Acquire. The line's bounds are those of Options.
var (
	ErrTimeout = errors.New("no permit became free in time")
	ErrRefused = errors.New("no permit will become free")
	ErrGone    = errors.New("whoever waited has gone")
	ErrFull    = errors.New("too many wait")
	ErrHeavy   = errors.New("those who wait hold too many bytes")
	ErrSlow    = errors.New("those who wait will take too long")
	ErrLate    = errors.New("no permit will be free in time")
)

// Claim is what somebody who wants a permit says of the request.
type Claim struct {
	// Wait is how long it waits at most; 0 or less: it does not.
	Wait time.Duration
	// Cost is how long it is expected to keep a runner; 0: nobody knows.
	Cost time.Duration
	// Bytes is the memory that it holds while it waits.
	Bytes int64
	// Who is found in Place while it waits.
	Who any
}

// Options are the bounds of Permits. What is 0 is no bound, except Limit.
type Options struct {
	// Limit is how many permits there are.
	Limit int
	// Runners is how many of the holders run at once; 0: all.
	Runners int
	// MaxWaiting is how many may wait, MaxBytes how many bytes they may hold together, and
	// MaxWait how long the last of them may expect to wait.
	MaxWaiting int
	MaxBytes   int64
	MaxWait    time.Duration
	// Elsewhere returns how many wait in the service beside those of this line, and how many
	// workers there are to run them; nil: none, and this one. It must not block or call back.
	Elsewhere func() (waiting, workers int)
	// Observe is told how many permits are in use and how many wait for one whenever that
	// changes, one call at a time; it must not call back. nil: nobody is.
	Observe func(inUse, waiting int)
}

// admitsHere returns why c may not join this line; nil: it may. The lock is held.
func (p *Permits) admitsHere(c *Claim) error {
	if c.Wait <= 0 { // it is not worth looking elsewhere
		return p.admits(c, 0, 0)
	}
	others, _ := p.elsewhere()
	return p.admits(c, p.expected(), others)
}

// admits returns why c may not join the line; nil: it may. expected is how long it would wait,
// others how many wait beside those of this line. The lock is held.
func (p *Permits) admits(c *Claim, expected time.Duration, others int) error {
	o := &p.options
	waiting := p.waiting() + others
	switch {
	case p.refusing:
		return ErrRefused
	case c.Wait <= 0:
		return ErrTimeout
	case o.MaxWaiting > 0 && waiting >= o.MaxWaiting:
		return ErrFull
	case o.MaxBytes > 0 && p.waiting() > 0 && p.bytes+c.Bytes > o.MaxBytes: // one may always wait
		return ErrHeavy
	}
	// A quarter more, since costs vary: who is let in only just, and then not answered in
	// time, has taken the time of somebody who would have been.
	switch {
	case expected+expected/4+c.Cost > c.Wait:
		return ErrLate
	case waiting == 0: // one may always wait
		return nil
	case o.MaxWait > 0 && expected > o.MaxWait, p.patience.exceeded(expected):
		return ErrSlow
	}
	return nil
}

// Place is one place in the line, as it was when Line looked.
type Place struct {
	Who    any
	waiter *waiter
	turn   uint64
}

// Line appends the places of all who wait to list, the first first.
func (p *Permits) Line(list []Place) []Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at := p.line.First(); at != nil; at = at.Next() {
		list = append(list, Place{at.Of.claim.Who, at.Of, at.Of.turn})
	}
	return list
}

// Drop ends the waiting of who has that place, with ErrGone, if it still has it and sure
// returns true: while sure runs it keeps waiting. It tells whether it did.
func (p *Permits) Drop(l Place, sure func(who any) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := l.waiter
	if w.turn != l.turn || !w.place.Stands() || !sure(l.Who) {
		return false
	}
	p.remove(w)
	p.patience.left(time.Since(w.since))
	w.granted <- gone // has room
	return true
}
