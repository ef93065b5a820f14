package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/handoff"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/process"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// pool is a number of workers of one kind, of one generation.
type pool struct {
	gen    *generation
	name   string
	number int            // of the name, on the scoreboard
	cfg    *config.Config // as if it were the only one
	other  bool           // its workers are not ours; see other.go
	// background says that its workers run tasks and nothing else.
	background bool
	tasks      func(*pool) (*ipc.TaskQueue, error) // what its workers are told of the queue of tasks
	trial      bool                                // it is one process that tries models; see change.go
	models     []ipc.ModelFile
	unloaded   []ipc.UnloadedModel // that operators or clients have had unloaded
	sockets    []boundSocket
	programs   programs
	identity   *process.Identity   // whom its workers run as; nil: whom we do
	manifest   int                 // sealed memory; -1: not made yet, or not needed
	queues     [len(queueEnds)]int // of connections between workers
	queueKey   string              // under which the main process keeps them
	outlives   bool                // what waits there outlives the service
	procs      int                 // GOMAXPROCS of each that is started from now on
	goMemory   uint64              // and GOMEMLIMIT, in bytes; 0: none
	size       int                 // how many workers it shall have; while it changes, slots has more or fewer
	asked      int                 // how many the configuration makes it have
	surge      int                 // how many workers may run beyond size during the reload to gen
	clocks     clocks
	policy     slot.Policy
	slots      []*poolSlot
	recycle    recycling
}

// newPool adds the pool called name to g, without programs, models and what complete
// makes.
func (s *Supervisor) newPool(g *generation, name string) *pool {
	c := g.cfg.ForPool(name)
	number, known := s.numbers[name]
	if !known {
		number = len(s.numbers)
		s.numbers[name] = number
	}
	p := &pool{
		gen: g, name: name, number: number, cfg: c, other: c.Worker.Other(), manifest: -1, queues: noQueues, outlives: s.opts.Main.outlives(),
		clocks: clocks{boot: c.Timeouts.Boot, heartbeat: c.Timeouts.Heartbeat, drain: c.Timeouts.Drain},
		policy: slot.Policy{MaxCrashes: c.Worker.MaxCrashes, CrashWindow: c.Worker.CrashWindow, MaxWait: c.Worker.MaxBackoff, QuarantineAfter: c.Worker.QuarantineAfter},
	}
	_, p.background = g.cfg.RunsTasks(name)
	p.tasks = s.taskQueue
	g.pools = append(g.pools, p)
	return p
}

// queueEnds are the ends of a pool's queues of connections: of those that leaving workers
// give away, and of those that wait with a request for any worker.
var queueEnds = [...]string{ipc.FDAdoptIn, ipc.FDAdoptOut, ipc.FDWaitIn, ipc.FDWaitOut}

// waitEnd is the place, among them, of the end by which the latter is read.
const waitEnd = 2

var noQueues = [len(queueEnds)]int{-1, -1, -1, -1}

// queue makes the queues of connections, or takes over those of before, the pool of that name
// of the generation before.
func (p *pool) queue(before *pool) (err error) {
	switch {
	case p.other:
	case before != nil && before.queues[0] >= 0:
		p.queues, p.queueKey = before.queues, before.queueKey
	default:
		p.queueKey = fresh(ipc.KeptQueue)
		for i := 0; i < len(p.queues); i += 2 {
			if p.queues[i], p.queues[i+1], err = handoff.Pair(); err != nil {
				return fmt.Errorf("make a queue of connections: %w", err)
			}
		}
		for i, end := range queueEnds {
			p.gen.keeper.store(p.queueKey+"/"+end, p.queues[i], outliving)
		}
	}
	return nil
}

// closeQueue closes the queues unless they are also those of other, the pool of that name of the
// generation that goes on; other may be nil.
func (p *pool) closeQueue(other *pool) {
	if p.queues[0] >= 0 && (other == nil || other.queues != p.queues) {
		for i, end := range queueEnds {
			activation.Close(p.queues[i])
			p.gen.keeper.remove(p.queueKey + "/" + end)
		}
	}
	p.queues = noQueues
}

// queued returns how many requests are in the queue that p's workers have in common, and how long
// the first of them has waited.
func (p *pool) queued() (n int, oldest time.Duration) {
	end := p.queues[waitEnd]
	if end < 0 {
		return 0, 0
	}
	n, seen := handoff.Waits(end)
	if seen > 0 {
		oldest = handoff.Clock() - seen
	}
	return n, oldest
}

// waiting returns how many requests wait for p's workers, in their common queue and in each of them,
// and how long the first of the former has.
func (s *Supervisor) waiting(p *pool) (n int, oldest time.Duration) {
	n, oldest = p.queued()
	for _, r := range s.shared.board.Rows() {
		if waiting := r.Waiting.Load(); waiting > 0 && r.Pool() == p.number {
			n += int(waiting)
		}
	}
	return n, oldest
}

// seal makes the manifest.
func (p *pool) seal() error {
	if p.other {
		return nil
	}
	fd, err := p.manifestOf(p.models, p.unloaded)
	if err == nil {
		p.manifest = fd
	}
	return err
}

// manifestOf returns a manifest of p with other models, in sealed memory.
func (p *pool) manifestOf(models []ipc.ModelFile, unloaded []ipc.UnloadedModel) (int, error) {
	settings, err := json.Marshal(p.cfg)
	if err != nil {
		return -1, fmt.Errorf("encode the configuration for workers: %w", err)
	}
	sockets, err := p.spoken()
	if err != nil {
		return -1, err
	}
	var tasks *ipc.TaskQueue
	if p.tasks != nil {
		if tasks, err = p.tasks(p); err != nil {
			return -1, err
		}
	}
	data, err := json.Marshal(ipc.Manifest{
		Tasks:      tasks,
		Generation: p.gen.number, Settings: settings, Library: p.programs.library, Models: models, Unloaded: unloaded, Outlives: p.outlives,
		Sockets: sockets, Tokens: p.gen.door.Tokens, Seed: p.gen.door.Seed,
	})
	if err != nil {
		return -1, fmt.Errorf("encode the manifest: %w", err)
	}
	return activation.Sealed("preforkd-manifest", data)
}

// key returns the key of one of p's settings.
func (p *pool) key(k string) string { return config.PoolKey(p.name, k) }

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
	recycled   string      // why it was replaced while it served; empty: it was not
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
	slot    *poolSlot
	proc    *process.Process
	row     *scoreboard.Row
	channel *channel           // nil: it is not ours
	private *activation.Socket // it is probed on; nil: it has none
	unwatch context.CancelFunc // ends its probes
	state   slot.State
	held    bool // it may not accept yet
	reason  slot.Reason
	started time.Duration
	ready   time.Duration // when it became ready; 0: never

	requestsBefore  uint64 // of the processes that had its row before
	limits          recycleLimits
	fresh, measured int64             // PSS in bytes when it became ready, and as we measured it last; 0: not known
	freshPrivate    int64             // bytes of its own when it became ready; 0: not known
	models          []ipc.ModelMemory // as it has reported them
	relieves        bool              // it leaves because memory is short
	postponed       rollout.Do        // how a helper leaves once nobody asks it any more; 0: it need not

	deadline time.Duration // of its state's clock; 0: none
	killed   bool          // we sent KILL
	exit     process.Exit  // once it has been settled
	suspect  suspect       // the call that it was in when we gave it up
	status   string        // its own last STATUS=
	errno    syscall.Errno // its own ERRNO=; 0: it said none
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
