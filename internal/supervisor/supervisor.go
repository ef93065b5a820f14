package supervisor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// Options are what a supervisor needs from its program.
type Options struct {
	Main     *Main          // nil: no main process keeps what outlives this one
	Config   *config.Config // nil: Reread is asked, unless there is a service to take over
	Warnings []string       // of the configuration; logged at start
	// Reread reads the configuration again, for a reload; nil: there are none.
	Reread  func() (*config.Loaded, error)
	Version string    // of the program
	Out     io.Writer // where the ready line goes
}

// Supervisor is one running service.
type Supervisor struct {
	opts   Options
	cfg    *config.Config
	log    *slog.Logger
	logs   *logFile
	level  slog.LevelVar // of log
	origin time.Time     // of the durations that package slot counts in

	ctx       context.Context // of everything that the loop starts; ends with the loop
	shared    shared
	server    *notify.Server
	upstream  *notify.Client    // of whoever started us: the main process, or a test
	lifeline  [2]int            // workers inherit the reading end; the other is the main process's, if there is one
	keeper    *keeper           // nil: there is no main process
	outputs   map[int][2]int    // pipes that are kept, by row
	records   []keptGeneration  // what was kept of generations when this process began
	outdated  []*generation     // that are kept no longer; forget gives them back
	tookOver  bool              // from a supervisor that died
	restored  bool              // of what the service's last run left
	inCharge  bool              // of the service; a successor is not before its commit
	former    *scoreboard.Board // of the predecessor, whose rows this program does not understand; nil: it is the same
	fatal     error             // why a successor gives up
	succeeded bool              // another supervisor is in charge by now

	events    chan event
	ended     chan struct{}   // closed when the loop has ended, so that nobody waits to tell it something
	gen       *generation     // the one in charge
	kept      []*kept         // the latest that were committed, gen last
	byPID     map[int]*worker // every process that has not been reaped
	op        *operation      // the reload under way; nil: none
	scale     *scaling        // the change of a pool's size under way; nil: none
	rounds    uint64          // in which workers gave each other connections, so far
	unsettled bool            // one of them may not have ended
	restarts  *restarting     // the replacement of workers under way; nil: none
	change    *changing       // the change of models under way; nil: none
	changedAt time.Duration   // when the last one ended that freed no rows yet; 0: there is none
	watchAt   time.Duration   // when to look at the directories of models again
	looking   bool            // that is under way
	watched   map[string]*watching
	queued    []queued      // for when it has ended
	sampleAt  time.Duration // when to look at the counters again
	recycleAt time.Duration // when to look whether a worker is due to be replaced
	measureAt time.Duration // when to read the memory of those that do not report it
	measuring bool          // that is under way
	rates     rates
	lookout   lookout // for limits that change
	pressure  pressure
	lost      map[modelOf]string // models whose weights are not shared as they should be, and why
	renewed   map[modelOf]uint64 // the generation in which they were last prepared anew
	renewing  bool               // that is under way
	oom       oomKills
	oomAbove  int                                // by how much our oom_score_adj is higher than the main process's
	numbers   map[string]int                     // of pools, by name; only newGeneration's
	deaths    map[*scoreboard.Model]*slot.Deaths // of workers, that models are to blame for
	everReady bool                               // some worker of this service has been ready
	proven    map[string]bool                    // pools of which some worker has been ready, by name
	bootLost  bool                               // the service ends because a pool never had a ready worker
	privates  int                                // how many of those were made
	helpers   *helperDir                         // nil: none has been needed
	probes    string                             // directory of the sockets of workers that are probed; empty: none yet
	announced bool
	stopping  stopMode
	drainAt   time.Duration // when a delayed stop goes on; 0: there is none
	health    atomic.Pointer[health]
	stopAt    time.Time // of the signal that began the stop
	stopBy    os.Signal
	bootErr   error    // why the first worker that ended before any was ready did so
	status    string   // the last one told upstream
	last      []string // the last lines of the worker that ended last

	broker  broker
	returns []ipc.TaskReturn // for which no worker was ready yet

	pid         int
	admin       *background
	adminServer *admin.Server
	ops         ops
	history     *admin.Log
	lastReload  *admin.Reload
	sweeps      sync.WaitGroup // of the cache
}

type event any

// endedEvent: the process of w has ended and all its output has been delivered.
type endedEvent struct{ w *worker }

// keptEvents is how many events operators can look back on.
const keptEvents = 1000

// New returns a supervisor that Run starts.
func New(opts Options) *Supervisor {
	return &Supervisor{
		opts: opts, cfg: opts.Config, origin: time.Now(), outputs: map[int][2]int{},
		lifeline: [2]int{-1, -1}, pid: os.Getpid(), history: admin.NewLog(keptEvents),
		events: make(chan event, 64), ended: make(chan struct{}), byPID: map[int]*worker{},
		lost: map[modelOf]string{}, renewed: map[modelOf]uint64{},
		deaths: map[*scoreboard.Model]*slot.Deaths{}, watched: map[string]*watching{}, numbers: map[string]int{config.MainPool: 0}, proven: map[string]bool{},
	}
}

// Run serves until a signal or ctx ends it, and returns when every worker has ended.
// An error says why the service could not start or go on, as an *ipc.Failure where an
// operator can do something about it.
func (s *Supervisor) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU)
	defer signal.Stop(signals)
	if err := s.configure(); err != nil {
		return err
	}
	if err := s.openLog(); err != nil {
		return err
	}
	defer s.logs.Close()
	for _, w := range s.opts.Warnings {
		s.log.Warn("configuration", "warning", w)
	}
	own, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.ctx = own
	defer s.release()
	if err := s.prepare(); err != nil {
		return err
	}
	switch {
	case s.opts.Main.succeeds():
		s.say(fmt.Sprintf("preforkd %s (pid %d) prepares", s.opts.Version, s.pid))
		to := s.opts.Main.returnTo
		s.reload(purpose{succeeds: true, back: to > 0, to: to}, false, nil)
	case s.tookOver:
		s.resumeService()
	default:
		s.startPools()
	}
	return s.loop(ctx, signals)
}

// configure finds the settings: those of the service to be taken over, whatever files say by
// now, else those that files say.
func (s *Supervisor) configure() error {
	if r, err := s.settings(); err != nil || r != nil {
		if err == nil {
			s.cfg = r.Settings
		}
		return err
	}
	if s.cfg != nil {
		return nil
	}
	loaded, err := s.opts.Reread()
	if err != nil {
		return err
	}
	s.cfg, s.opts.Warnings = &loaded.Config, loaded.Warnings
	return nil
}

func (s *Supervisor) now() time.Duration { return time.Since(s.origin) }

// loop carries out events until the service has ended.
func (s *Supervisor) loop(ctx context.Context, signals <-chan os.Signal) error {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if done, err := s.outcome(); done {
			return err
		}
		s.keepBroker()
		timer.Reset(s.untilNext())
		select {
		case e := <-s.events:
			s.handle(e)
		case sig := <-signals:
			s.onSignal(sig)
		case <-timer.C:
			s.onTimer()
		case <-ctx.Done():
			ctx = context.Background()
			s.stop(stopGraceful, nil)
		}
		s.publish()
		s.report()
	}
}

func (s *Supervisor) handle(e event) {
	switch e := e.(type) {
	case endedEvent:
		s.apply(e.w, slot.OnExit)
	case notify.Message:
		s.onMessage(e)
	case askEvent:
		e.do()
	case preparedEvent:
		s.onPrepared(e)
	case testedEvent:
		s.onTested(e)
	case watchedEvent:
		s.onWatched(e)
	case upgradedEvent:
		s.onUpgraded(e)
	case lookedEvent:
		s.onLooked(e)
	case collectedEvent:
		s.onCollected(e)
	case answeredEvent:
		s.onAnswered(e)
	case measuredEvent:
		s.onMeasured(e)
	case limitsEvent:
		s.onLimits(e)
	case weighedEvent:
		s.onWeighed(e)
	case strainEvent:
		s.onStrain(e)
	case memoryEvent:
		s.onMemory(e)
	case renewedEvent:
		s.onRenewed(e)
	case brokerEndedEvent:
		s.onBrokerEnded(e)
	}
}

// send hands e to the loop, from another goroutine.
func (s *Supervisor) send(e event) {
	select {
	case s.events <- e:
	case <-s.ended:
	}
}

// untilNext returns how long nothing is due.
func (s *Supervisor) untilNext() time.Duration {
	next := min(s.sampleAt, s.pressure.at) - s.now()
	if s.recycles() {
		next = min(next, s.recycleAt-s.now())
	}
	if s.watchEvery() > 0 {
		next = min(next, s.watchAt-s.now())
	}
	if s.broker.proc == nil && s.broker.retryAt > s.now() {
		next = min(next, s.broker.retryAt-s.now())
	}
	for _, sl := range s.slots() {
		if sl.retryAt > 0 {
			next = min(next, sl.retryAt-s.now())
		}
	}
	if s.op != nil && s.op.deadline > 0 {
		next = min(next, s.op.deadline-s.now())
	}
	if s.drainAt > 0 {
		next = min(next, s.drainAt-s.now())
	}
	for _, w := range s.byPID {
		if w.deadline > 0 {
			next = min(next, w.deadline-s.now())
		}
	}
	return max(next, 0)
}

// onTimer carries out what is due.
func (s *Supervisor) onTimer() {
	now := s.now()
	for _, w := range s.byPID {
		if w.deadline > 0 && now >= w.deadline {
			s.timeout(w)
		}
	}
	for _, sl := range s.slots() {
		if sl.retryAt > 0 && now >= sl.retryAt && sl.worker == nil {
			sl.retryAt = 0
			s.start(sl)
		}
	}
	if op := s.op; op != nil && op.deadline > 0 && now >= op.deadline {
		op.deadline = 0
		s.feed(rollout.Event{Kind: rollout.OnClock, Pool: op.clockOf})
	}
	if s.drainAt > 0 && now >= s.drainAt {
		s.stop(stopGraceful, nil)
	}
	if s.watchEvery() > 0 && now >= s.watchAt {
		s.lookAtModels()
	}
	if now >= s.measureAt {
		s.measureAt = now + measureEvery
		s.measure()
	}
	if now >= s.lookout.at {
		s.lookout.at = now + lookEvery
		s.look()
	}
	if now >= s.pressure.at {
		s.pressure.at = now + strainEvery
		s.feel()
	}
	if now >= s.recycleAt {
		s.recycleAt = now + recycleEvery
		s.checkRecycle()
	}
	if now >= s.sampleAt {
		s.sampleAt = now + sampleEvery
		s.rates.take(now, s.byPID)
		s.oom.sample()
		if s.inCharge {
			s.shared.board.Heartbeat().Mark()
		}
		s.checkStuck()
		s.askForTime()
	}
}

// slots returns those of the generation in charge and, during a reload, of the other.
func (s *Supervisor) slots() []*poolSlot {
	if op := s.op; op != nil && op.next != nil {
		return append(op.old.slots(), op.next.slots()...)
	}
	return s.gen.slots()
}

func jitter() float64 { return rand.Float64() }
