package helper

import (
	"errors"
	"net"
	"sync"
	"time"

	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/fifo"
	"preforkd/internal/worker/peer"
)

// Errors of Take and Ask.
var (
	ErrFull   = errors.New("as many requests wait for a helper as may")
	ErrBusy   = errors.New("no helper became free")
	ErrNone   = errors.New("no helper is ready")
	ErrLate   = errors.New("the request's time is over")
	ErrGone   = errors.New("the client has gone")
	ErrBroken = errors.New("the helper failed")
)

// Options say how a worker asks the helpers of one pool.
type Options struct {
	Name string // the pool's
	// Rows are those of the scoreboard, Ready the state that a row of a helper has while it may be
	// asked, and Generation the worker's: its own helpers go before those of others.
	Rows       func() []*scoreboard.Row
	Ready      uint64
	Generation uint64
	// Socket is the path of the socket of the helper in a row.
	Socket func(r *scoreboard.Row) string

	Connections int           // requests at one helper at once
	MaxWaiting  int           // requests that wait for a helper
	MaxWait     time.Duration // how long one waits
	MaxAnswer   int           // bytes of an answer's body; 0: any number
	// Observe is told by how many more requests are being asked and wait, one call at a time; it
	// must not call back. Served is told how each request went; nil: nobody is.
	Observe func(running, waiting int)
	Served  func(ok bool, took time.Duration)
}

// Pool is the helpers of one pool, as one worker sees them.
type Pool struct {
	o       Options
	waiters sync.Pool // of *waiter

	mu     sync.Mutex // guards everything below
	seats  []*seat
	known  []uint64  // of each row, the serial of the claim that was looked at last
	looked time.Time // at the rows
	turns  uint64    // seats taken so far
	line   fifo.Line[*waiter]
}

// seat is one helper process.
type seat struct {
	row    *scoreboard.Row
	serial uint64 // of its claim of the row
	path   string
	busy   int
	used   uint64    // the pool's turns when it was taken last
	avoid  time.Time // until then: it could not be reached
	idle   []*Conn
	met    []string // models whose description has been compared
}

// waiter is a request in line; turn holds its seat once it has one.
type waiter struct {
	place fifo.Place[*waiter]
	turn  chan *seat
}

const (
	// lookEvery is how often the rows are looked at while a request waits, and whether its client
	// is still there; lookSeldom how often while none does. A helper that leaves is seen at once.
	lookEvery  = 20 * time.Millisecond
	lookSeldom = 100 * time.Millisecond
	// avoidFor is how long a helper is left alone that could not be reached: by then the
	// supervisor knows why.
	avoidFor = 50 * time.Millisecond
)

// New returns the pool of o. It looks at nothing yet.
func New(o Options) *Pool {
	if o.Observe == nil {
		o.Observe = func(int, int) {}
	}
	if o.Served == nil {
		o.Served = func(bool, time.Duration) {}
	}
	p := &Pool{o: o}
	p.waiters.New = func() any { return &waiter{turn: make(chan *seat, 1)} }
	return p
}

// Name is that of the pool.
func (p *Pool) Name() string { return p.o.Name }

// MaxWait is how long a request waits for a helper.
func (p *Pool) MaxWait() time.Duration { return p.o.MaxWait }

// Take returns a connection to a helper, which is the caller's until Release, and waits for one
// at most until then; zero: as long as may be. who is the client, whose end ends the wait; nil:
// nobody.
func (p *Pool) Take(until time.Time, who net.Conn) (*Conn, error) {
	begin := time.Now()
	for {
		s, err := p.seat(begin, until, who)
		if err != nil {
			return nil, err
		}
		c, err := p.connect(s, until)
		if err == nil {
			return c, nil
		}
		p.mu.Lock()
		s.avoid = time.Now().Add(avoidFor)
		p.free(s)
		p.mu.Unlock()
		if !until.IsZero() && time.Now().After(until) {
			return nil, ErrLate
		}
	}
}

// seat takes a place at a helper for a request that began to wait then.
func (p *Pool) seat(begin, until time.Time, who net.Conn) (*seat, error) {
	p.mu.Lock()
	now := time.Now()
	if p.line.Len() == 0 { // nobody is overtaken
		if now.Sub(p.looked) >= lookSeldom {
			p.look(now)
		}
		s := p.pick(now)
		if s == nil && now.Sub(p.looked) >= lookEvery {
			p.look(now)
			s = p.pick(now)
		}
		if s != nil {
			p.mu.Unlock()
			return s, nil
		}
	}
	if p.line.Len() >= p.o.MaxWaiting {
		p.mu.Unlock()
		return nil, ErrFull
	}
	w := p.waiters.Get().(*waiter)
	w.place.Of = w
	p.line.Push(&w.place)
	p.o.Observe(0, 1)
	p.mu.Unlock()
	s, err := p.wait(w, begin, until, who)
	p.waiters.Put(w)
	return s, err
}

// wait returns the seat that w gets.
func (p *Pool) wait(w *waiter, begin, until time.Time, who net.Conn) (*seat, error) {
	end, over := begin.Add(p.o.MaxWait), error(nil)
	if !until.IsZero() && until.Before(end) {
		end, over = until, ErrLate
	}
	timer := time.NewTimer(max(min(lookEvery, time.Until(end)), 0))
	defer timer.Stop()
	for {
		select {
		case s := <-w.turn:
			return s, nil
		case <-timer.C:
		}
		var err error
		left := time.Until(end)
		gone := who != nil && peer.Gone(who)
		p.mu.Lock()
		if !w.place.Stands() { // it got one just now
			p.mu.Unlock()
			return <-w.turn, nil
		}
		switch {
		case gone:
			err = ErrGone
		case left <= 0 && over != nil:
			err = over
		case left <= 0:
			err = p.why(time.Now())
		default:
			if now := time.Now(); now.Sub(p.looked) >= lookEvery {
				p.look(now)
			}
			p.serve()
			timer.Reset(min(lookEvery, left))
		}
		if err != nil {
			p.line.Remove(&w.place)
			p.o.Observe(0, -1)
			p.mu.Unlock()
			return nil, err
		}
		p.mu.Unlock()
	}
}

// why says why nobody became free: whether there is a helper at all. The lock is held.
func (p *Pool) why(now time.Time) error {
	for _, s := range p.seats {
		if p.alive(s, now) {
			return ErrBusy
		}
	}
	return ErrNone
}

// alive tells whether the helper of s may be asked.
func (p *Pool) alive(s *seat, now time.Time) bool {
	return s.row.Serial() == s.serial && s.row.State() == p.o.Ready && !now.Before(s.avoid)
}

// pick takes a place at the helper with the fewest requests, among equals the one that was taken
// least lately, of this worker's generation if there is any; nil: none has room. The lock is held.
func (p *Pool) pick(now time.Time) *seat {
	var best *seat
	own := false
	for _, s := range p.seats {
		if !p.alive(s, now) {
			continue
		}
		mine := s.row.Generation() == p.o.Generation
		if mine && !own {
			own, best = true, nil
		}
		if own && !mine || s.busy >= p.o.Connections {
			continue
		}
		if best == nil || s.busy < best.busy || s.busy == best.busy && s.used < best.used {
			best = s
		}
	}
	if best != nil {
		p.turns++
		best.busy, best.used = best.busy+1, p.turns
		p.o.Observe(1, 0)
	}
	return best
}

// free gives back what pick took, and serves those who wait. The lock is held.
func (p *Pool) free(s *seat) {
	s.busy--
	p.o.Observe(-1, 0)
	p.serve()
}

// serve gives places to those who wait, first come first served. The lock is held.
func (p *Pool) serve() {
	for first := p.line.First(); first != nil; first = p.line.First() {
		s := p.pick(time.Now())
		if s == nil {
			return
		}
		p.line.Remove(first)
		p.o.Observe(0, -1)
		first.Of.turn <- s // it has room for one
	}
}

// look brings the seats up to date with the rows. The lock is held.
func (p *Pool) look(now time.Time) {
	p.looked = now
	kept := p.seats[:0]
	for _, s := range p.seats {
		if s.row.Serial() == s.serial && s.row.State() == p.o.Ready {
			kept = append(kept, s)
			continue
		}
		for _, c := range s.idle { // it waits for that
			c.close()
		}
		s.idle = nil
	}
	clear(p.seats[len(kept):])
	p.seats = kept
	rows := p.o.Rows()
	for len(p.known) < len(rows) {
		p.known = append(p.known, 0)
	}
	for i, r := range rows {
		if r.State() != p.o.Ready || r.PID() <= 0 {
			continue
		}
		serial := r.Serial()
		if p.known[i] == serial+1 { // 0: none
			continue
		}
		p.known[i] = serial + 1
		if path := p.o.Socket(r); exists(path) && r.Serial() == serial {
			p.seats = append(p.seats, &seat{row: r, serial: serial, path: path})
		}
	}
}
