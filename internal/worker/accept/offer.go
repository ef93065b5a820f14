package accept

import (
	"errors"
	"math"
	"sync"

	"preforkd/internal/ipc/handoff"
)

// everything is an allowance without bound.
const everything = math.MaxInt

// offer is how many connections may be put into a queue, by whoever reads them next.
type offer struct {
	queue   *handoff.Queue // nil: CloseAdopted's
	changed chan struct{}  // one token: something was given, refused or closed

	mu      sync.Mutex // guards the fields below; held while a descriptor is sent
	left    int
	given   int
	refused bool // the queue was full; nothing is tried until the next allow
}

func newOffer(q *handoff.Queue) *offer {
	return &offer{queue: q, changed: make(chan struct{}, 1)}
}

// allow lets n more connections go and returns how many have gone so far. After
// allow(0) none goes any more.
func (o *offer) allow(n int) (given int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left, o.refused = n, false
	return o.given
}

// look returns how many have gone and may still go, and whether the queue was full.
func (o *offer) look() (given, left int, refused bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.given, o.left, o.refused
}

// give sends c, if one more may go. False leaves c with its caller, as it was.
func (o *offer) give(c *conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left == 0 {
		return false
	}
	if o.queue == nil {
		if !c.adopted || c.arrival.phase != nothing {
			return false
		}
		c.state.Store(given)
		return true
	}
	err := c.send(o.queue)
	if errors.Is(err, handoff.ErrFull) {
		o.left, o.refused = 0, true
		o.signal()
	}
	if err != nil { // closed meanwhile, or no socket: Read will find out
		return false
	}
	if o.left != everything {
		o.left--
	}
	o.given++
	c.state.Store(given)
	c.pool.moved.Add(1)
	o.signal()
	return true
}

func (o *offer) signal() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}
