package worker

import (
	"context"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"preforkd/internal/ipc/activation"
)

// serve accepts and answers until the worker shall leave, then drains.
func (w *worker) serve(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Stop(signals)
	// These steer the supervisor; `systemctl kill` sends them to every process. PIPE
	// would end a worker that outlives the reader of its output.
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN,
		syscall.SIGTTOU, syscall.SIGPIPE)

	mainDied := make(chan struct{})
	go func() { // ends with the main process, or with this one
		activation.AwaitEnd(w.lifeline)
		close(mainDied)
	}()
	ran := make(chan error, 1)
	go func() { ran <- w.control.Run(ctx) }() // ends with the supervisor, or with this process
	channel := (<-chan error)(ran)
	stopBeat := w.beat()
	defer stopBeat()
	defer alongside(w.conns.Run)()
	defer alongside(w.api.Watch)()
	defer alongside(w.keepTasks)()
	w.measureMemory() // what a worker needs that has done nothing yet
	if err := w.supers.SendWait("READY=1", "STATUS=serving", "WATCHDOG=1"); err != nil {
		w.log.Warn("supervisor not told that this worker is ready", "err", err)
	}
	defer alongside(w.keepMemory)()
	w.change.beside.Go(w.reportModels) // ends when the supervisor has heard it, or has died
	if !w.held {
		w.release()
	}
	var ended <-chan error
	var successor <-chan time.Time // when to look whether one is in charge
	mayAccept := w.mayAccept
	told := false // to leave, by a signal
	for {
		select {
		case <-mayAccept:
			mayAccept = nil
			ended = w.accept()
			w.runTasks()
			continue
		case <-channel:
			channel = nil
			w.resolve()
			if w.orphaned() {
				successor = time.Tick(successorPoll)
				continue
			}
		case <-successor:
			if w.board.Committed().Load() <= w.manifest.Generation {
				continue
			}
			w.log.Info("a successor's workers serve, leaving")
		case sig := <-signals:
			if sig != syscall.SIGTERM {
				return nil
			}
			told = true
		case <-mainDied:
			w.log.Warn("main process died, leaving")
			w.alone = true
			w.board.Stopping().Store(1) // as its workers see at once, whoever is first
		case <-ctx.Done():
		case err := <-ended:
			return err
		}
		return w.drain(signals, told, ended)
	}
}

// successorPoll is how often a worker whose supervisor has died looks for a successor.
const successorPoll = 50 * time.Millisecond

// orphaned decides what a worker does whose supervisor has died: serve on, which it
// reports, until a successor's generation is in charge; or leave, where its own never was.
// Then it was to take connections that nobody else may take before that is taken back.
func (w *worker) orphaned() (servesOn bool) {
	own, committed := w.manifest.Generation, w.board.Committed().Load()
	if own <= committed {
		w.log.Warn("supervisor died; serving on")
		return true
	}
	w.log.Warn("supervisor died before this generation was in charge, leaving")
	w.board.Taker().CompareAndSwap(own, committed)
	return false
}

// accept serves each listener in a goroutine of its own; the channel gets one result
// for each. What takes from the common queue ends by itself, and last.
func (w *worker) accept() <-chan error {
	ended := make(chan error, len(w.listeners)+2)
	for _, ln := range w.listeners {
		go func() { ended <- w.server.Serve(ln) }()
	}
	if w.taker != nil {
		for _, ln := range []net.Listener{w.taker, w.sweeper} {
			w.took.Go(func() {
				if err := w.server.Serve(ln); err != nil {
					ended <- err
				}
			})
		}
	}
	return ended
}

// drain stops accepting, gives idle connections to the workers that stay, lets what is
// in flight finish, and returns when it has or when the drain clock has run out. A
// signal ends it at once, except the TERM of a supervisor that does not know yet that this
// worker, not told, leaves by itself.
func (w *worker) drain(signals <-chan os.Signal, told bool, ended <-chan error) error {
	w.leaving.Store(true)
	_ = w.supers.SendWait("STOPPING=1", "STATUS=draining")
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.Timeouts.Drain)
	defer cancel()
	done := make(chan struct{})
	go func() { // told to stop, or ends with the drain
		for {
			select {
			case sig := <-signals:
				if sig == syscall.SIGTERM && !told {
					told = true
					continue
				}
				cancel()
			case <-done:
			}
			return
		}
	}()
	if w.taker != nil { // requests may wait for longer than this worker has
		defer context.AfterFunc(ctx, w.taker.End)()
	}
	start := time.Now()
	if w.tasks.stop != nil {
		w.tasks.stop()
	}
	if ended != nil {
		w.leave(ctx, ended)
	}
	err := w.shutDown(ctx)
	w.leaveTasks(ctx)
	close(done)
	if err != nil {
		w.log.Warn("drain given up", "requests", w.conns.Counts().Busy, "took", time.Since(start).Round(time.Millisecond), "clock", "timeouts.drain", "limit", w.cfg.Timeouts.Drain.String())
	}
	return nil
}

// shutDown returns when every connection has ended, or only such are left as the request
// clock has ended: a run that cannot be stopped then has no client that waits for it.
func (w *worker) shutDown(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, took := make(chan error, 1), make(chan struct{})
	go func() { ended <- w.server.ShutdownWithContext(ctx) }() // the listening sockets first
	go func() {                                                // ends as the queue is empty, or the drain over
		w.took.Wait()
		close(took)
	}()
	ticker := time.NewTicker(stoppingPoll)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ticker.C:
		}
		select {
		case <-took:
		default: // somebody waits, who will be taken
			continue
		}
		if w.conns.Open() > 0 {
			continue
		}
		cancel() // what the server still counts has ended, or waits for its run
		if err := <-ended; err != nil && w.permits.InUse() > 0 {
			w.log.Warn("left in the middle of a run whose client has been answered", "clock", "timeouts.request")
		}
		return nil
	}
}

// leave ends accepting. Where others stay they get the connections; when the whole
// service stops nobody does, and what the kernel has accepted already is served here. What
// the queue keeps until the next start goes there.
func (w *worker) leave(ctx context.Context, ended <-chan error) {
	if !w.alone && w.board.Stopping().Load() == 0 {
		moved, kept := w.handOver(ctx)
		w.log.Info("connections handed over", "moved", moved, "kept", kept)
		w.lastCall(ctx)
	}
	if w.alone || w.board.Stopping().Load() != 0 {
		if w.manifest.Outlives {
			left, kept := w.conns.LeaveBehind(ctx, w.queue)
			w.log.Info("connections left to the next start of the service", "left", left, "kept", kept)
		}
		for _, ln := range w.listeners {
			ln.Stop()
		}
		if w.taker != nil {
			w.taker.Stop()
		}
		w.conns.CloseAdopted()
	}
	for range w.listeners {
		<-ended
	}
	w.count()
}

// stoppingPoll is how often a worker that hands over looks whether the service has
// begun to stop: then nobody stays to take what is left.
const stoppingPoll = 50 * time.Millisecond

// handOver gives connections to the workers that stay, as long as any do.
func (w *worker) handOver(ctx context.Context) (moved, kept int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() {
		ticker := time.NewTicker(stoppingPoll)
		defer ticker.Stop()
		for w.board.Stopping().Load() == 0 {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
		cancel()
	})
	defer func() {
		cancel()
		watch.Wait()
	}()
	return w.conns.Leave(ctx, w.queue)
}

// count brings this worker's row up to date with its connections.
func (w *worker) count() {
	w.countLock.Lock()
	defer w.countLock.Unlock()
	now := w.conns.Counts()
	w.row.Connections.Set(int64(now.Open))
	w.row.Idle.Set(int64(now.Idle))
	w.row.HandedOver.Add(now.Moved - w.tallied.Moved)
	w.row.Adopted.Add(now.Adopted - w.tallied.Adopted)
	w.row.HandoffRefused.Add(now.Reclaimed - w.tallied.Reclaimed)
	w.row.Queued.Add(now.Queued - w.tallied.Queued)
	w.row.Taken.Add(now.Taken - w.tallied.Taken)
	w.row.Unqueued.Add(now.Unqueued - w.tallied.Unqueued)
	w.tallied = now
}

// alongside runs a clock beside what is served. The function it returns ends it and waits.
func alongside(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// beat tells the supervisor that this process still schedules, four times in the time
// after which it would be taken for hung, and at least once a second. The function it
// returns stops that and waits for it.
func (w *worker) beat() (stop func()) {
	every := time.Second
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 63); err == nil && usec > 0 {
		every = max(min(every, time.Duration(usec)*time.Microsecond/4), time.Millisecond)
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				w.row.Ticked.Mark()
				w.count()
				_ = w.supers.Send("WATCHDOG=1")
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
	}
}
