package slot

import (
	"slices"
	"time"
)

// End is how a worker ended.
type End struct {
	Reason Reason
	Signal int // that ended it; 0: none
	Status int // with which it exited, without a signal
}

// Signals by which a process ends through its own doing, or that of native code in it, by
// their numbers on x86-64 and arm64 (signal(7)). A trap is how arm64 compilers end a
// program that has gone wrong.
var faults = []int{
	4,  // ILL
	5,  // TRAP
	6,  // ABRT
	7,  // BUS
	8,  // FPE
	11, // SEGV
}

const (
	// goFault is the exit status of a Go program that met such a signal in native code,
	// or that gave itself up.
	goFault = 2
	// shellSignal is what a shell adds to the number of the signal that ended a program.
	shellSignal = 128
)

// OfCall tells whether a worker that ended so in the middle of a call into the engine did
// so of that call. What somebody has sent from outside, KILL and TERM, says nothing.
func (e End) OfCall() bool {
	switch e.Reason {
	case Stuck, Hung, Memory:
		return true
	case Boot, Overdue:
		return false // we have ended it, for something else
	}
	if e.Signal != 0 {
		return slices.Contains(faults, e.Signal)
	}
	return e.Status == goFault || slices.Contains(faults, e.Status-shellSignal)
}

// Deaths are the workers that one model has ended lately. The zero value has seen none.
type Deaths struct {
	at []time.Duration // when, oldest first, within the window
}

// Died records a death at now. It returns how many there were within the window, and
// whether that is enough to quarantine the model; then the count begins anew.
func (d *Deaths) Died(now time.Duration, p Policy) (n int, enough bool) {
	if p.QuarantineAfter == 0 {
		return 0, false
	}
	for len(d.at) > 0 && now-d.at[0] > p.CrashWindow {
		d.at = d.at[1:]
	}
	d.at = append(d.at, now)
	if n = len(d.at); n < p.QuarantineAfter {
		return n, false
	}
	d.at = nil
	return n, true
}
