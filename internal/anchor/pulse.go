package anchor

import (
	"log/slog"
	"syscall"
	"time"

	"preforkd/internal/ipc/scoreboard"
)

// How the supervisor's heartbeat is read: it marks a word of the scoreboard every two
// seconds, and whoever has not in lateReadings looks in a row, each made on time, is killed.
// A container that was frozen makes late looks itself, which count for nothing.
const (
	tick         = time.Second
	onTime       = 3 * tick / 2
	beat         = 2 * time.Second
	lateAge      = beat + tick
	lateReadings = 3
)

// pulse is the supervisor's heartbeat as the main process sees it.
type pulse struct {
	board *scoreboard.Board // nil: not known yet
	last  time.Time         // the last look
	late  int               // how many looks in a row found it late
}

// open maps the scoreboard, once a supervisor has stored it.
func (p *pulse) open(v *vault, log *slog.Logger) {
	p.close()
	board, err := openBoard(v)
	if err != nil {
		log.Warn("heartbeat of the supervisor not watched", "err", err)
		return
	}
	p.board = board
}

func (p *pulse) close() {
	if p.board != nil {
		_ = p.board.Close()
		p.board = nil
	}
}

// reset forgets the supervisor that has died.
func (p *pulse) reset() { p.late = 0 }

// read looks at a heartbeat of that age; now is when. It reports whether the supervisor has
// to be given up.
func (p *pulse) read(now time.Time, age time.Duration) bool {
	late := now.Sub(p.last)
	p.last = now
	switch {
	case late > onTime: // this process stood still, and so did the supervisor
		p.late = 0
	case age <= lateAge:
		p.late = 0
	default:
		p.late++
	}
	return p.late >= lateReadings
}

// look kills a supervisor that hangs. The workers serve on.
func (a *Anchor) look(now time.Time) {
	if a.pulse.board == nil || a.child == nil || !a.child.proven {
		return
	}
	age, marked := a.pulse.board.Heartbeat().Age()
	if !marked || !a.pulse.read(now, age) {
		return
	}
	a.pulse.reset()
	a.log.Error("supervisor hangs; it is killed", "pid", a.child.pid, "heartbeat", age.Round(time.Millisecond))
	a.child.signal(syscall.SIGKILL)
}
