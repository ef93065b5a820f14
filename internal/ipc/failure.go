package ipc

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Exit statuses of every program of this repository. The numbers from 64 on are
// those of sysexits.h. 2 is never used: Go's panics and native crashes end with it.
const (
	ExitOK          = 0
	ExitOther       = 1
	ExitBoot        = 3  // no worker became ready
	ExitRolledBack  = 4  // a reload or an upgrade was taken back; what ran keeps running
	ExitUsage       = 64 // EX_USAGE: the command line is wrong
	ExitUnavailable = 69 // EX_UNAVAILABLE: an address, a library or every worker is unavailable
	ExitBug         = 70 // EX_SOFTWARE: our own defect
	ExitTryAgain    = 75 // EX_TEMPFAIL: another operation is in progress
	ExitPermission  = 77 // EX_NOPERM: a file, directory or port may not be used
	ExitConfig      = 78 // EX_CONFIG: a setting is wrong
)

// Failure is an error that an operator reads: what went wrong, and what to do next.
// It is the only error that crosses a process boundary, and it ends the process
// that meets it with Exit.
type Failure struct {
	Exit int    `json:"exit"` // one of the Exit constants
	What string `json:"what"` // what was being done, on what, and why it could not be
	Try  string `json:"try,omitempty"`
	Err  error  `json:"-"` // the cause, for errors.Is; it does not cross the boundary
}

// Error returns What, and Try on a line of its own.
func (f *Failure) Error() string {
	if f.Try == "" {
		return f.What
	}
	return f.What + "\n  try: " + f.Try
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// EncodeFailure returns f in one line, as X_PREFORKD_FAILURE= carries it.
func EncodeFailure(f *Failure) string {
	b, err := json.Marshal(f)
	if err != nil { // strings and an int always encode
		panic(err)
	}
	return string(b)
}

// DecodeFailure reads what EncodeFailure wrote. A text that is no failure, or that
// names no exit status a process can end with, is an error.
func DecodeFailure(s string) (*Failure, error) {
	var f Failure
	if err := json.Unmarshal([]byte(s), &f); err != nil {
		return nil, fmt.Errorf("decode failure: %w", err)
	}
	if f.Exit <= 0 || f.Exit > 255 || f.What == "" {
		return nil, fmt.Errorf("decode failure: exit status %d, text %q", f.Exit, f.What)
	}
	return &f, nil
}

// ExitStatus is the status with which a program ends that could not go on because
// of err: that of the Failure in its chain, ExitOther without one, ExitOK for nil.
func ExitStatus(err error) int {
	if err == nil {
		return ExitOK
	}
	if f := (*Failure)(nil); errors.As(err, &f) {
		return f.Exit
	}
	return ExitOther
}
