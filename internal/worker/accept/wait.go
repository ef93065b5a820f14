package accept

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"preforkd/internal/ipc/handoff"
)

// Permits are the worker's own: each is the right to read and run one request.
type Permits interface {
	// Take returns one that is free, if there is any; it does not wait.
	Take() (permit int, ok bool)
	// Stand waits for one. After false there is none: stop has been closed, or nobody shall wait.
	Stand(stop <-chan struct{}) (permit int, ok bool)
	// Release gives one back.
	Release(permit int)
}

// Head is what Look has found out about a request.
type Head struct {
	Computes bool          // it needs a permit
	Size     int           // of header and body; 0: it can only be read where it is
	Limit    time.Duration // how long it may take, waiting included
	Cost     time.Duration // how long it is expected to have a runner; 0: nobody knows
}

// Wait is how requests wait for a permit of any worker of a pool: unread, each with its connection,
// in a queue that all workers have in common.
type Wait struct {
	Queue   *handoff.Queue
	Permits Permits
	// Computes tells of what a request begins with, one line perhaps, whether it may need a permit.
	// It is asked for every request.
	Computes func(begins []byte) bool
	// Look looks at what there is of a request; false: its header is not complete.
	Look func(begins []byte) (Head, bool)
	// Stays tells whether the next who waits in this worker gets a permit so soon that it is better
	// read and waits here; it is asked while nobody waits in the queue. Nil: it never does.
	Stays func() bool
	// Admits returns why a request may not wait in the queue; nil: it may.
	Admits func(Head) error
	// Puts is a word that all workers have in common, see anybody.
	Puts *atomic.Uint64
	// Takes has this worker only take what others have put, and put nothing.
	Takes bool
	// BodyTime is how long a body may take to arrive; 0: any time.
	BodyTime time.Duration
}

// waiting is a pool's end of the queue.
type waiting struct {
	Wait
	most    int           // the largest request that the kernel can hold unread, of TCP
	emptyAt atomic.Uint64 // what Puts was when the queue was found empty

	mu     sync.RWMutex // guards shut; held while a connection is put
	shut   bool         // nothing more is put
	closed atomic.Bool  // the same, for who only looks

	half atomic.Int64 // connections that wait for the rest of a request, none of which has been read

	put, taken, full atomic.Uint64
}

// anybody tells whether a connection waits. Puts rises before and after each is put: while it is
// what it was when the queue was empty, that still is, and nobody has to ask the kernel. Whoever
// dies between the two leaves a message that this overlooks; a taker, who waits for messages, does not.
func (w *waiting) anybody() bool {
	at := w.Puts.Load()
	if at == w.emptyAt.Load() {
		return false
	}
	if w.Queue.Depth() > 0 {
		return true
	}
	w.emptyAt.Store(at)
	return false
}

var errShut = errors.New("nothing more is put into the queue")

// send puts a connection.
func (w *waiting) send(fd int, m handoff.Message) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.shut {
		return errShut
	}
	w.Puts.Add(1)
	err := w.Queue.Put(fd, m)
	w.Puts.Add(1)
	switch {
	case err == nil:
		w.put.Add(1)
	case errors.Is(err, handoff.ErrFull):
		w.full.Add(1)
	}
	return err
}

// end has nothing more put: what has been is in the queue when it returns.
func (w *waiting) end() {
	w.closed.Store(true)
	w.mu.Lock()
	w.shut = true
	w.mu.Unlock()
}

// Arrival is how the request that a connection is in has come here.
type Arrival struct {
	Permit  int           // that has come with it, and is now the caller's; -1: none
	Queued  bool          // through the queue
	Waited  time.Duration // in the queue
	Refused error         // what Admits has said; nil: it was not asked, or had nothing against it
}

// Arrived returns how the request in c has come here, and with it the permit that came with it. It
// is called by the goroutine that serves c, in a request.
func Arrived(c net.Conn) Arrival {
	conn, ok := c.(*conn)
	if !ok {
		return Arrival{Permit: -1}
	}
	return Arrival{Permit: int(conn.held.Swap(0)) - 1, Queued: conn.seen > 0, Waited: Waited(c), Refused: conn.refused}
}

// Waited returns how long ago the request in c was seen by the worker that put it into the queue; 0: it
// did not wait there.
func Waited(c net.Conn) time.Duration {
	if conn, ok := c.(*conn); ok && conn.seen > 0 {
		return max(handoff.Clock()-conn.seen, 1)
	}
	return 0
}
