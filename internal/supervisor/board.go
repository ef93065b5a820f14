package supervisor

import (
	"fmt"
	"time"

	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/control"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/slot"
)

// shared is what our workers of all pools and generations hold.
type shared struct {
	board   *scoreboard.Board
	boardFD int
}

// boardRows is how many worker processes may live at once: a reload has two per slot,
// and workers that drain for long may be joined by those of the next reload.
const boardRows = 1024

func newShared() (sh shared, err error) {
	sh = shared{boardFD: -1}
	if sh.board, sh.boardFD, err = scoreboard.Create(boardRows); err != nil {
		return sh, fmt.Errorf("make the scoreboard: %w", err)
	}
	return sh, nil
}

func (sh *shared) release() {
	if sh.board != nil {
		_ = sh.board.Close()
	}
	activation.Close(sh.boardFD)
}

// channel is this side's end of a worker's control channel, and the descriptor that
// the worker inherits.
type channel struct {
	conn   *control.Conn
	worker int // descriptor; closed once the worker has been started
	ended  chan struct{}
}

// newChannel makes the channel and reads from it until the worker has died or close is
// called.
func (s *Supervisor) newChannel(handlers map[string]control.Handler) (*channel, error) {
	own, theirs, err := control.Pair()
	if err != nil {
		return nil, err
	}
	conn, err := control.New(own, handlers)
	if err != nil {
		activation.Close(theirs)
		return nil, err
	}
	c := &channel{conn: conn, worker: theirs, ended: make(chan struct{})}
	go func() { // ends with the worker, or in close
		defer close(c.ended)
		_ = conn.Run(s.ctx) // that it has died is seen by the process's end
	}()
	return c, nil
}

func (c *channel) close() {
	_ = c.conn.Close()
	<-c.ended
}

// join gives w a row of the scoreboard, and a control channel if it is ours.
func (s *Supervisor) join(w *worker) (err error) {
	w.row, err = s.shared.board.Claim(scoreboard.Holder{
		Pool: w.slot.pool.number, Slot: w.slot.index, Generation: w.slot.pool.gen.number, State: uint64(slot.Starting),
	})
	if err != nil {
		return fmt.Errorf("claim a row of the scoreboard: %w", err)
	}
	w.requestsBefore = w.row.Requests.Load() + w.row.Helped.Load()
	if w.slot.pool.other {
		return nil
	}
	if w.channel, err = s.newChannel(s.workerHandlers(w)); err != nil {
		w.row.Settle(0, uint64(slot.Failed), scoreboard.ExitNone)
		return fmt.Errorf("make a control channel: %w", err)
	}
	return nil
}

// part takes row and channel back from w, whose process has ended or never was.
func (s *Supervisor) part(w *worker) {
	if w.channel != nil {
		w.channel.close()
	}
	w.endProbes()
	pid, exit := 0, scoreboard.ExitNone
	if w.proc != nil {
		pid, exit = w.row.PID(), scoreboard.Exited(w.proc.Exit().Status)
		if w.proc.Exit().Unknown {
			exit = scoreboard.ExitUnknown
		}
	}
	gauges, ok := w.row.Settle(pid, uint64(w.state), exit)
	if ok && w.proc != nil && gauges.InFlight > 0 {
		w.row.Lost.Add(uint64(gauges.InFlight))
		s.log.Warn("requests lost", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID, "requests", gauges.InFlight)
	}
}

// stuckFactor times the request clock is how long a call into native code may last: it
// cannot be cancelled, so its process is replaced.
const stuckFactor = 2

// checkStuck replaces workers whose engine call has outlasted the request clock.
func (s *Supervisor) checkStuck() {
	for _, w := range s.byPID {
		limit := stuckFactor * w.slot.pool.cfg.Timeouts.Request
		if age, busy := w.row.BusySince.Age(); busy && age > limit && w.state == slot.Ready {
			s.log.Error("worker stuck in an engine call", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID,
				"clock", "timeouts.request", "limit", limit, "since", age.Round(time.Millisecond))
			s.lose(w, slot.Stuck)
		}
	}
}
