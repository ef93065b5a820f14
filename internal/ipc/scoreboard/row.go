package scoreboard

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// rowBytes is the size of Fields.
const rowBytes = 512

// Row is one worker process's place. A worker holds its *Row for life and writes
// through it: r.Requests.Add(1).
type Row struct {
	*Fields
	Latency *Histogram // of requests, from the first byte read to the last one written
	Layers  *Layers    // on a board of an earlier version this process's own
	Running *Running   // likewise
	index   int
}

// Fields is a row as it lies in memory, a cache line for each writer and rhythm.
// Spare words are zero; a later version may use them without breaking this one.
type Fields struct {
	// The supervisor's, written when a process starts, changes state and ends.
	claim      atomic.Uint64 // see claimed
	pid        atomic.Uint64 // see holder
	slot       atomic.Uint64
	pool       atomic.Uint64
	generation atomic.Uint64
	started    atomic.Uint64 // Unix time in nanoseconds
	state      atomic.Uint64
	exit       atomic.Uint64 // an Exit

	Ticked    Stamp         // the worker's scheduler runs
	BusySince Stamp         // start of the oldest engine call in progress; none: no call
	model     atomic.Uint64 // see Enter
	request   atomic.Uint64
	_         [4]uint64

	InFlight    Gauge // requests
	Connections Gauge // open
	Idle        Gauge // those of them between two requests
	Limit       Gauge // permits, each the right to read and run one request
	InUse       Gauge // those of them that are held
	Waiting     Gauge // requests that wait for one
	_           [2]uint64

	Requests  Counter    // begun
	Responses [5]Counter // by class, 1xx to 5xx; Respond counts
	Forsaken  [2]Counter // requests whose client has gone: while they waited, while they ran

	Accepted       Counter // connections from a listening socket
	Adopted        Counter // connections from another worker
	HandedOver     Counter // connections to another worker
	HandoffRefused Counter // connections that nobody could take; the worker kept them
	Queued         Counter // requests put into the queue that all workers have in common
	Taken          Counter // requests taken from there
	Unqueued       Counter // requests for which it had no room; they wait here
	Helped         Counter // requests that workers have had at the helper in this row; the workers'

	EngineCalls Counter
	EngineNs    Counter    // nanoseconds inside them
	Refused     [3]Counter // requests by why: too many wait, it would take too long, later than the client wants
	Expired     [2]Counter // requests whose time was over: while they waited, while they ran
	_           [1]uint64

	Lost  Counter // requests that ended unanswered with their process; the supervisor's
	Exits Counter // processes that ended in this row; the supervisor's
	_     [6]uint64

	// Bytes of the process; 0: not said. What it has of its own is resident and anonymous, what it
	// shares, or others could, is pages of files and of shared memory.
	PSS     Gauge // its proportional share of resident memory
	Private Gauge
	Shared  Gauge
	_       [5]uint64
}

// Respond counts a response with an HTTP status; one that is no status, 100 to 599,
// counts as 5xx: a client cannot read it.
func (f *Fields) Respond(status int) {
	class := status/100 - 1
	if class < 0 || class > 4 {
		class = 4
	}
	f.Responses[class].Add(1)
}

// Enter says that the worker is about to run a model, whose row has that number, for the
// request with that digest; Leave, that it has. A worker with several permits would need
// a place for each.
//
// The model is what counts, and it is written last and taken away first: whenever the
// process dies, the digest beside a model is that of the model's own request.
func (f *Fields) Enter(model int, request uint64) {
	f.request.Store(request)
	f.model.Store(uint64(model))
}

// Leave takes back what Enter said.
func (f *Fields) Leave() { f.model.Store(0) }

// Entered returns what Enter said; model is 0 after Leave.
func (f *Fields) Entered() (model int, request uint64) {
	return int(f.model.Load()), f.request.Load()
}

// claim: the claiming supervisor's pid in bits 0 to 31, 0 for a free row; how often the
// row was claimed, its serial, in 32 to 62; in 63 whether the identity is complete.
const (
	claimed  = 1<<32 - 1
	complete = 1 << 63
	serials  = complete - 1 - claimed
	oneClaim = 1 << 32
)

// pid: the process in bits 0 to 31, and the serial of the claim that it belongs to, so
// that one compare-and-swap decides between a late worker and whoever settles its row.
// 0 in the lower bits: no process yet.
const settled = 1<<32 - 1

// ErrFull is returned by Claim when every row is held.
var ErrFull = errors.New("every row of the scoreboard is held")

// Holder is the identity that a supervisor gives to a row.
type Holder struct {
	Pool, Slot int // indices, from 0
	Generation uint64
	State      uint64 // where its life begins; see SetState
}

// Claim takes a free row for a worker that is about to start. Only a supervisor calls
// it; two of them may, at once. The error is ErrFull.
func (b *Board) Claim(h Holder) (*Row, error) {
	for _, r := range b.rows {
		old := r.claim.Load()
		mine := (old+oneClaim)&serials | uint64(os.Getpid())
		if old&claimed != 0 || !r.claim.CompareAndSwap(old, mine) {
			continue
		}
		r.pid.Store(mine & serials)
		r.pool.Store(uint64(h.Pool))
		r.slot.Store(uint64(h.Slot))
		r.generation.Store(h.Generation)
		r.started.Store(uint64(time.Now().UnixNano()))
		r.state.Store(h.State)
		r.exit.Store(uint64(ExitNone))
		r.claim.Store(mine | complete)
		return r, nil
	}
	return nil, ErrFull
}

// Index is the row's place on the board, from 0.
func (r *Row) Index() int { return r.index }

// Ticket names the row and this claim of it, for the worker to attach with.
func (r *Row) Ticket() string {
	return fmt.Sprintf("%d.%d", r.index, r.claim.Load()&serials>>32)
}

// Serial tells this claim of the row from those before and after it.
func (r *Row) Serial() uint64 { return r.claim.Load() & serials / oneClaim }

// Attach returns the row of a ticket and writes this process's pid into it. It is an
// error if the row was settled meanwhile: the supervisor that started this process has
// died and its successor did not see it; the process shall leave.
func (b *Board) Attach(ticket string) (*Row, error) {
	left, right, _ := strings.Cut(ticket, ".")
	index, err := strconv.ParseUint(left, 10, 31)
	serial, err2 := strconv.ParseUint(right, 10, 31)
	if err != nil || err2 != nil || index >= uint64(len(b.rows)) {
		return nil, fmt.Errorf("ticket %q names no row of the %d on the scoreboard", ticket, len(b.rows))
	}
	r := b.rows[index]
	if !r.become(serial<<32, uint64(os.Getpid())) {
		return nil, fmt.Errorf("row %d of the scoreboard was taken back before this process could attach to it (ticket %s)", index, ticket)
	}
	return r, nil
}

// SetPID says which process was started for the row. The process itself says the same
// in Attach, so that it is known even if the supervisor dies between fork and here.
// It reports whether the row is still this process's to have.
func (r *Row) SetPID(pid int) bool { return r.become(r.claim.Load()&serials, uint64(pid)) }

func (r *Row) become(serial, pid uint64) bool {
	return r.pid.CompareAndSwap(serial, serial|pid) || r.pid.Load() == serial|pid
}

// PID is the process in the row: 0 if none is known yet, or if the row is free; -1 if
// somebody began to settle the row and has not finished.
func (r *Row) PID() int {
	c, p := r.claim.Load(), r.pid.Load()
	switch {
	case c&claimed == 0, p&serials != c&serials: // the latter: its claimer has not come to write it
		return 0
	case p&settled == settled:
		return -1
	default:
		return int(p & settled)
	}
}

// Claimer is the pid of the supervisor that claimed the row; 0: the row is free.
func (r *Row) Claimer() int { return int(r.claim.Load() & claimed) }

// Generation is that of whoever holds the row, or held it last.
func (r *Row) Generation() uint64 { return r.generation.Load() }

// Slot is the index of the slot within the pool.
func (r *Row) Slot() int { return int(r.slot.Load()) }

// Ended records how process pid has ended, for whoever watches it and did not start it. It
// reports whether the process is in this row. Whoever has reaped it calls this.
func (r *Row) Ended(pid int, exit Exit) bool {
	if pid <= 0 || r.PID() != pid {
		return false
	}
	r.exit.Store(uint64(exit))
	return true
}

// Exit is what Ended or Settle recorded, ExitNone while the process runs.
func (r *Row) Exit() Exit { return Exit(r.exit.Load()) }

// Pool returns the index of the pool of whoever holds the row, or held it last.
func (r *Row) Pool() int { return int(r.pool.Load()) }

// SetState records where the process is in its life. The numbers are those of the
// supervisor's states, which are only ever appended to.
func (r *Row) SetState(state uint64) { r.state.Store(state) }

// State is what SetState recorded last.
func (r *Row) State() uint64 { return r.state.Load() }

// Gauges are a row's gauges at one moment.
type Gauges struct {
	InFlight, Connections, Idle int64
	Limit, InUse, Waiting       int64
}

// Settle ends a claim: it zeroes the gauges, records the exit and frees the row. Its
// counters stay. pid is what PID returned, and the process must have ended; 0 takes
// back a row for which no process has attached, -1 one whose claimer died while it settled
// it. It returns the gauges as the process left them, and false without changing anything
// if the row's pid is another one by now.
//
// Only the claimer calls it, or a successor once the claimer has died.
func (r *Row) Settle(pid int, state uint64, exit Exit) (Gauges, bool) {
	c := r.claim.Load()
	serial := c & serials
	if c&claimed == 0 {
		return Gauges{}, false
	}
	if p := r.pid.Load(); p&serials != serial { // its claimer died inside Claim
		r.pid.CompareAndSwap(p, serial)
	}
	if !r.pid.CompareAndSwap(serial|uint64(uint32(pid)), serial|settled) {
		return Gauges{}, false
	}
	if pid > 0 {
		r.Exits.Add(1)
	}
	r.exit.Store(uint64(exit))
	r.state.Store(state)
	left := r.gauges()
	r.InFlight.Set(0)
	r.Connections.Set(0)
	r.Idle.Set(0)
	r.Limit.Set(0)
	r.InUse.Set(0)
	r.Waiting.Set(0)
	r.PSS.Set(0)
	r.Private.Set(0)
	r.Shared.Set(0)
	r.Layers.settle()
	r.Running.End()
	r.Ticked.Clear()
	r.BusySince.Clear()
	r.Leave()
	r.request.Store(0)
	r.claim.Store(c &^ claimed)
	return left, true
}

func (r *Row) gauges() Gauges {
	return Gauges{r.InFlight.Load(), r.Connections.Load(), r.Idle.Load(), r.Limit.Load(), r.InUse.Load(), r.Waiting.Load()}
}
