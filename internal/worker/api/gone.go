package api

import (
	"net"
	"time"

	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/peer"
)

// goneLook is how often Watch looks for clients that have gone while anybody waits or runs.
const goneLook = 25 * time.Millisecond

// line is what dropGone keeps between its looks. Only Watch uses it.
type line struct {
	places []admission.Place
	peers  peer.Watch
}

// dropGone takes those out of the lines for a permit, or for a place on another layer, whose
// clients have gone, and tells whether anybody waits.
func (a *API) dropGone() (some bool) {
	for _, p := range a.lines {
		some = a.dropFrom(p) || some
	}
	return some
}

func (a *API) dropFrom(p *admission.Permits) bool {
	l := &a.line
	l.places = p.Line(l.places[:0])
	l.peers.Reset()
	for i := range l.places {
		conn, _ := l.places[i].Who.(net.Conn) // a self-test waits for nobody
		l.peers.Add(conn)
	}
	l.peers.Look(func(i int) {
		// While it stands in line its connection is open, and Gone is sure.
		p.Drop(l.places[i], func(who any) bool { return peer.Gone(who.(net.Conn)) })
	})
	some := len(l.places) > 0
	clear(l.places)
	return some
}

// forsake gives up the call that ends at until if its client has gone.
func (a *API) forsake(c *call, until int64) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if !c.until.CompareAndSwap(until, looking) {
		return
	}
	if !peer.Gone(c.ctx.Conn()) { // the holder cannot leave meanwhile
		c.until.Store(until)
		return
	}
	c.gone, c.noticed = true, time.Now()
	c.until.Store(overdue)
	a.runners.GiveUp(&c.job)
}
