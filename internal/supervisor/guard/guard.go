package guard

import (
	"fmt"
	"time"
)

// Sample is memory at one moment, in bytes, and what has been counted until then.
type Sample struct {
	Limit       uint64        // that may be used; 0: unknown, and nothing is short
	Used        uint64        // that nobody but its owner gives back
	Mapped      uint64        // of files that are mapped: the kernel may take it, and reads it anew when it is touched
	Stalled     time.Duration // in which somebody waited for memory
	StallKnown  bool
	MajorFaults uint64 // pages that had to be read
}

// Level is how short memory is.
type Level uint8

// The levels. Where memory is tight nothing that takes more is begun, where it is critical
// something has to give some back.
const (
	Calm Level = iota
	Tight
	Critical
	levels
)

var levelNames = [levels]string{"calm", "tight", "critical"}

// String returns the level as operators read it.
func (l Level) String() string { return levelNames[l] }

// What makes memory critical: so much of it is used that the kernel is about to kill, or the
// kernel takes pages away that are in use. That shows as time in which processes wait for memory
// (PSI; 20 % of it, where systemd-oomd kills from 60 % on), and, where the kernel does not tell
// that, as pages that are read. Neither alone counts: a start reads pages, and others on the
// machine may wait. Each has a lower mark to be left at, so that a level does not come and go.
const (
	criticalUsed, criticalUsedLeft = 0.95, 0.90
	tightUsed, tightUsedLeft       = 0.85, 0.80
	// fullFrom is how much is used, mapped files included, where waiting counts.
	fullFrom, fullLeft = 0.90, 0.85
	stallFrom, stallTo = 0.20, 0.05 // of the time
	faultsFrom         = 100.0      // a second
	faultsTo           = 20.0
)

// A level is entered after so many samples in a row, and left after so many.
const (
	enterAfter = 3
	leaveAfter = 10
)

// State is what a Watch has found.
type State struct {
	Level  Level
	Used   float64 // part of the limit
	Full   float64 // the same with what is mapped
	Stall  float64 // part of the time between the last two samples in which somebody waited; -1: unknown
	Faults float64 // pages read, a second
}

// Watch follows samples. The zero value has seen none.
type Watch struct {
	state    State
	last     Sample
	at       time.Duration
	seen     bool
	up, down int   // samples in a row that are worse, that are better
	worse    Level // the least of those that are worse
	better   Level // the worst of those that are better
}

// State returns what was found last.
func (w *Watch) State() State { return w.state }

// Take takes notice of a sample at now, and tells whether the level has changed. Counts that
// have fallen, as those of another cgroup may, begin anew.
func (w *Watch) Take(now time.Duration, s Sample) (changed bool) {
	before := w.state.Level
	w.measure(now, s)
	w.last, w.at, w.seen = s, now, true
	switch worse, better := w.level(false), w.level(true); {
	case worse > before:
		if w.up == 0 || worse < w.worse {
			w.worse = worse
		}
		if w.up, w.down = w.up+1, 0; w.up >= enterAfter {
			w.state.Level, w.up = w.worse, 0
		}
	case better < before:
		if w.down == 0 || better > w.better {
			w.better = better
		}
		if w.up, w.down = 0, w.down+1; w.down >= leaveAfter {
			w.state.Level, w.down = w.better, 0
		}
	default:
		w.up, w.down = 0, 0
	}
	return w.state.Level != before
}

// measure computes the parts and rates.
func (w *Watch) measure(now time.Duration, s Sample) {
	st := &w.state
	st.Used, st.Full, st.Stall, st.Faults = 0, 0, -1, 0
	if s.Limit > 0 {
		st.Used = float64(s.Used) / float64(s.Limit)
		st.Full = (float64(s.Used) + float64(s.Mapped)) / float64(s.Limit)
	}
	took := now - w.at
	if !w.seen || took <= 0 {
		return
	}
	if s.MajorFaults >= w.last.MajorFaults {
		st.Faults = float64(s.MajorFaults-w.last.MajorFaults) / took.Seconds()
	}
	if s.StallKnown && w.last.StallKnown && s.Stalled >= w.last.Stalled {
		st.Stall = min(float64(s.Stalled-w.last.Stalled)/float64(took), 1)
	}
}

// level is what the sample alone says: with the marks at which levels are entered, or, to stay,
// those at which they are left.
func (w *Watch) level(stay bool) Level {
	critical, tight, full, stall, faults := criticalUsed, tightUsed, fullFrom, stallFrom, faultsFrom
	if stay {
		critical, tight, full, stall, faults = criticalUsedLeft, tightUsedLeft, fullLeft, stallTo, faultsTo
	}
	st := w.state
	waits := st.Stall >= stall || st.Stall < 0 && st.Faults >= faults
	switch {
	case st.Used >= critical, st.Full >= full && waits:
		return Critical
	case st.Used >= tight, st.Full >= full:
		return Tight
	}
	return Calm
}

// String says what was found, for operators.
func (s State) String() string {
	text := fmt.Sprintf("%.0f %% used, %.0f %% with mapped files", 100*s.Used, 100*s.Full)
	if s.Stall >= 0 {
		text += fmt.Sprintf(", processes waited for memory %.0f %% of the time", 100*s.Stall)
	}
	return text + fmt.Sprintf(", %.0f major faults a second", s.Faults)
}
