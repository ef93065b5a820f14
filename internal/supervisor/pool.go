package supervisor

import (
	"strings"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/process"
	"preforkd/internal/supervisor/slot"
)

// mainPool is the name of the pool that the settings outside of pools describe.
const mainPool = "main"

// pool is a number of workers of one kind, of one generation.
type pool struct {
	gen     *generation
	name    string
	number  int      // of the name, on the scoreboard
	path    string   // of the program
	command []string // its arguments, the program's name first
	procs   int      // GOMAXPROCS of each that is started from now on
	size    int      // how many workers it shall have; while it changes, slots has more or fewer
	asked   int      // how many the configuration makes it have
	surge   int      // how many workers may run beyond size during the reload to gen
	clocks  clocks
	policy  slot.Policy
	slots   []*poolSlot
}

// clocks bound how long a worker may stay in a state.
type clocks struct{ boot, heartbeat, drain time.Duration }

// killClock is how long a worker that was told to leave at once may take.
const killClock = 2 * time.Second

// drainGrace is what the supervisor waits beyond the drain clock, which the worker
// keeps itself: it then leaves with a count of the requests that it had to give up.
const drainGrace = time.Second

// poolSlot is a worker's stable place in its pool.
type poolSlot struct {
	pool    *pool
	index   int
	worker  *worker // nil: none runs
	history slot.History
	retryAt time.Duration // when to start the next; 0: not planned
	failed  bool          // its crash budget is used up
	held    bool          // its first worker ended before any worker of the service was ready
	wait    time.Duration // before the next start, as its crashes ask for

	startHeld bool   // the next worker shall not accept before it is told to
	restarts  int    // processes that were started after the first
	lastExit  string // how the last process ended, in words
	begun     bool   // a process was started

	lastReason slot.Reason // why it ended
}

// inherit takes over what operators are told of a slot, from the same slot of the
// generation before.
func (sl *poolSlot) inherit(old *poolSlot) {
	sl.restarts += old.restarts
	if sl.lastExit == "" {
		sl.lastExit, sl.lastReason = old.lastExit, old.lastReason
	}
}

// worker is one process in a slot.
type worker struct {
	slot     *poolSlot
	proc     *process.Process
	row      *scoreboard.Row
	channel  *channel
	state    slot.State
	reason   slot.Reason
	started  time.Duration
	ready    time.Duration // when it became ready; 0: never
	deadline time.Duration // of its state's clock; 0: none
	killed   bool          // we sent KILL
	exit     process.Exit  // once it has been settled
	suspect  suspect       // the call that it was in when we gave it up
	status   string        // its own last STATUS=
	failure  *ipc.Failure  // its own X_PREFORKD_FAILURE=
	startErr error         // why there is no process
	tail     tail          // written by its output's goroutine until the process has ended
}

// gone tells whether the process of w ends within limit.
func (w *worker) gone(limit time.Duration) bool {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-w.proc.Done():
		return true
	case <-late.C:
		return false
	}
}

// tail keeps the last lines of a worker's output, and what Go's run time said first of a
// fault: its stacks, which follow, are long.
type tail struct {
	lines []string
	fault string
}

// tailLines is how many lines an operator sees of a worker that could not start.
const tailLines = 20

func (t *tail) add(line string) {
	if t.fault == "" && isFault(line) {
		t.fault = line
	}
	if len(t.lines) == tailLines {
		copy(t.lines, t.lines[1:])
		t.lines = t.lines[:tailLines-1]
	}
	t.lines = append(t.lines, line)
}

// isFault tells whether line is one of "SIGFPE: floating-point exception", "fatal error: out
// of memory" and the like.
func isFault(line string) bool {
	if strings.HasPrefix(line, "fatal error: ") {
		return true
	}
	name, _, ok := strings.Cut(line, ": ")
	return ok && len(name) > 3 && strings.HasPrefix(name, "SIG") && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// count returns how many workers of p are in state st.
func (p *pool) count(st slot.State) int {
	n := 0
	for _, sl := range p.slots {
		if sl.worker != nil && sl.worker.state == st {
			n++
		}
	}
	return n
}
