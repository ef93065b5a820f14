package supervisor

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// stopMode is how the service is being stopped. A later mode is never taken back.
type stopMode uint8

const (
	stopNot       stopMode = iota
	stopDelayed            // serve on for drain.delay, so that clients go elsewhere; then gracefully
	stopGraceful           // finish what is in flight, up to the drain clock
	stopQuick              // two seconds
	stopImmediate          // KILL
)

// stopModes are their names in the log, and what operators read of them.
var stopModes = [...]struct{ name, text string }{
	stopDelayed:   {"delayed", "serves on for %v (drain.delay), then drains"},
	stopGraceful:  {"graceful", "drains"},
	stopQuick:     {"quick", "ends quickly"},
	stopImmediate: {"immediate", "kills the workers"},
}

// sameSignal is how long a repetition of the signal that stops the service counts as
// the same: service managers and shells may deliver one stop twice.
const sameSignal = 200 * time.Millisecond

// onSignal carries out an operator's signal; docs/operations.md has the table.
func (s *Supervisor) onSignal(sig os.Signal) {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
		switch {
		case s.stopping == stopNot && sig == syscall.SIGTERM:
			s.stop(stopDelayed, sig)
		case s.stopping == stopNot:
			s.stop(stopQuick, sig)
		case sig != s.stopBy || time.Since(s.stopAt) > sameSignal:
			s.stop(stopImmediate, sig)
		}
	case syscall.SIGHUP:
		s.reload(purpose{}, false, nil)
	case syscall.SIGUSR1:
		if err := s.logs.Reopen(); err != nil {
			s.log.Error("log file not opened again", "err", err)
			return
		}
		s.log.Info("log file opened again", "path", s.cfg.Log.File)
	case syscall.SIGUSR2:
		s.reload(purpose{upgrade: true}, false, nil)
	case syscall.SIGTTIN:
		s.step(1)
	case syscall.SIGTTOU:
		s.step(-1)
	default:
		s.log.Warn("signal ignored", "signal", sig.String())
	}
}

// stop begins to stop the service, or goes on less gently.
func (s *Supervisor) stop(mode stopMode, by os.Signal) {
	if mode == stopDelayed && (s.gen.cfg.Drain.Delay == 0 || !s.inCharge || !s.serves()) {
		mode = stopGraceful
	}
	if mode <= s.stopping {
		return
	}
	first := s.stopping == stopNot
	s.freeze()
	s.stopping, s.drainAt = mode, 0
	if mode == stopDelayed {
		s.drainAt = s.now() + s.gen.cfg.Drain.Delay
		s.mark((*scoreboard.Board).Unready)
	} else {
		s.mark((*scoreboard.Board).Stopping) // nobody stays to whom connections could go
	}
	s.publish()
	if first {
		s.stopAt, s.stopBy = time.Now(), by
	}
	s.tellStop(first, by)
	if first {
		s.endOperations()
	}
	if mode == stopDelayed {
		s.leaveEarly()
		return
	}
	s.endWorkers(mode)
}

// mark sets a word of the scoreboard, and of a predecessor's that our workers do not have.
func (s *Supervisor) mark(word func(*scoreboard.Board) *atomic.Uint64) {
	word(s.shared.board).Store(1)
	if s.former != nil {
		word(s.former).Store(1)
	}
}

// tellStop tells everybody how the service is being stopped by now.
func (s *Supervisor) tellStop(first bool, by os.Signal) {
	mode := stopModes[s.stopping]
	keys := []any{"mode", mode.name}
	if by != nil {
		keys = append(keys, "signal", by.String())
	}
	keys = append(keys, "workers", len(s.byPID))
	var said []string
	if first {
		said = append(said, "STOPPING=1")
	}
	if s.stopping == stopDelayed {
		delay := s.gen.cfg.Drain.Delay
		keys = append(keys, "clock", "drain.delay", "limit", delay)
		mode.text = fmt.Sprintf(mode.text, delay)
		said = append(said, "STATUS=stopping: "+mode.text)
	} else {
		said = append(said, "STATUS=stopping")
	}
	_ = s.upstream.SendWait(said...)
	s.log.Info("stopping", keys...)
	s.emit(admin.Event{Kind: "stop", Text: mode.text, Generation: s.gen.number})
}

// endOperations ends what is under way. What has begun to serve serves on until the workers
// are told to leave, of whichever generation it is.
func (s *Supervisor) endOperations() {
	if s.op != nil && s.op.upgrade {
		s.opts.Main.upgrader.Stop()
	}
	if s.op != nil && s.op.rollout == nil {
		s.conclude(rollout.Stopped, "", nil)
	}
	s.feed(rollout.Event{Kind: rollout.OnStop})
	s.feedScale(rollout.Event{Kind: rollout.OnStop})
	s.feedRestart(rollout.Event{Kind: rollout.OnStop})
	s.stopChange()
	for _, sl := range s.slots() {
		sl.retryAt, sl.held = 0, false
	}
}

// leaveEarly lets those workers leave that serve nobody. The others are to take the
// connections of any that ends on its own.
func (s *Supervisor) leaveEarly() {
	s.shared.board.Taker().Store(s.gen.number)
	s.settleRounds()
	for _, w := range s.byPID {
		if !w.serves() && !w.reason.Charged() {
			s.apply(w, slot.OnLeave)
		}
	}
}

// endWorkers lets all workers leave. Listening ends at once: what comes now is refused by the
// kernel instead of waiting for nobody. Where the sockets are kept for the next start of the
// service it waits for that.
func (s *Supervisor) endWorkers(mode stopMode) {
	for _, sl := range s.slots() {
		if !s.keeper.isFrozen() {
			sl.pool.gen.closeSockets(nil)
		}
	}
	for _, w := range s.byPID {
		if w.reason.Charged() && mode != stopImmediate { // on its way out already; keep why
			continue
		}
		switch mode {
		case stopGraceful:
			if !s.postpone(w, rollout.Drain) {
				s.apply(w, slot.OnLeave)
			}
		case stopQuick:
			s.apply(w, slot.OnQuit)
		case stopImmediate:
			s.apply(w, slot.OnQuit)
			s.apply(w, slot.OnTimeout)
		}
	}
}

// shorten begins the drain when no worker is left that could serve on: none is started again.
func (s *Supervisor) shorten() {
	if s.stopping == stopDelayed && !s.serves() {
		s.stop(stopGraceful, nil)
	}
}

// serves tells whether w accepts connections.
func (w *worker) serves() bool { return w.state == slot.Ready && !w.held }

// serves tells whether any worker does.
func (s *Supervisor) serves() bool {
	for _, w := range s.byPID {
		if w.serves() {
			return true
		}
	}
	return false
}
