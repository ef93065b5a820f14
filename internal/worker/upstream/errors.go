package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Kind is what became of an exchange that failed.
type Kind int

// The kinds.
const (
	Unreachable Kind = iota // no connection could be made
	Slow                    // a time was over
	Closed                  // it closed the connection before the answer was whole
	Garbage                 // what it sent is no answer
	Large                   // what it sent is larger than allowed
	Refused                 // it answers, and does not do what is asked
	Aborted                 // nobody waits any more
)

// Error is why an exchange failed, in words that follow the name of the service.
type Error struct {
	Kind Kind
	Text string
	// Within is the time that was over, and Of which setting says so; empty: the call's own end.
	Within time.Duration
	Of     string

	again bool // nothing of an answer had come: it may be asked once more
}

func (e *Error) Error() string { return e.Text }

func garbage(format string, args ...any) error {
	return &Error{Kind: Garbage, Text: fmt.Sprintf(format, args...)}
}

// failed describes an error of a connection's read or write, when got bytes of the answer had come.
func failed(err error, got int) error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{Kind: Slow, Text: "gave no answer"}
	case got > 0:
		return &Error{Kind: Closed, Text: "closed the connection in the middle of its answer"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return &Error{Kind: Closed, Text: "closed the connection without an answer", again: true}
	}
	return &Error{Kind: Closed, Text: reason(err), again: true}
}

// reason is the innermost text of an error of package net, without the addresses around it:
// clients read it.
func reason(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &dns):
		return "its name is not known: " + dns.Err
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	}
	return err.Error()
}
