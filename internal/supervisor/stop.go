package supervisor

import (
	"os"
	"syscall"
	"time"

	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// stopMode is how the service is being stopped. A later mode is never taken back.
type stopMode uint8

const (
	stopNot       stopMode = iota
	stopGraceful           // finish what is in flight, up to the drain clock
	stopQuick              // two seconds
	stopImmediate          // KILL
)

// sameSignal is how long a repetition of the signal that stops the service counts as
// the same: service managers and shells may deliver one stop twice.
const sameSignal = 200 * time.Millisecond

// onSignal carries out an operator's signal; docs/operations.md has the table.
func (s *Supervisor) onSignal(sig os.Signal) {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
		switch {
		case s.stopping == stopNot && sig == syscall.SIGTERM:
			s.stop(stopGraceful, sig)
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

// stop begins to stop the service, or goes on less gently. Listening ends at once: what
// comes now is refused by the kernel instead of waiting for nobody. Where the sockets are kept
// for the next start of the service it waits for that.
func (s *Supervisor) stop(mode stopMode, by os.Signal) {
	if mode <= s.stopping {
		return
	}
	if s.stopping == stopNot {
		s.stopAt, s.stopBy = time.Now(), by
		_ = s.upstream.SendWait("STOPPING=1", "STATUS=stopping")
	}
	s.stopping = mode
	s.freeze()
	s.shared.board.Stopping().Store(1) // nobody stays to whom connections could go
	if s.former != nil {
		s.former.Stopping().Store(1)
	}
	name := [...]string{stopGraceful: "graceful", stopQuick: "quick", stopImmediate: "immediate"}[mode]
	if by != nil {
		s.log.Info("stopping", "mode", name, "signal", by.String(), "workers", len(s.byPID))
	} else {
		s.log.Info("stopping", "mode", name, "workers", len(s.byPID))
	}
	if s.op != nil && s.op.upgrade {
		s.opts.Main.upgrader.Stop()
	}
	if s.op != nil && s.op.rollout == nil {
		s.conclude(rollout.Stopped, "", nil)
	}
	s.feed(rollout.Event{Kind: rollout.OnStop})
	s.feedScale(rollout.Event{Kind: rollout.OnStop})
	s.feedRestart(rollout.Event{Kind: rollout.OnStop})
	for _, sl := range s.slots() {
		sl.retryAt, sl.held = 0, false
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
			s.apply(w, slot.OnLeave)
		case stopQuick:
			s.apply(w, slot.OnQuit)
		case stopImmediate:
			s.apply(w, slot.OnQuit)
			s.apply(w, slot.OnTimeout)
		}
	}
}
