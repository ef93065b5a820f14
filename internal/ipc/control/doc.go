// Package control is the channel between the supervisor and one worker: requests and
// replies with ids over a SOCK_SEQPACKET pair (unix(7)), either side may ask.
//
// It owns one end of the pair (New) and the rules of the wire: JSON messages of at most
// MaxMessage bytes, an error reply for kinds that nobody handles, and that end-of-file
// means the other side's death. What the kinds are and what follows from a death is for
// supervisor and worker, which call it; it decides nothing and never starts or signals
// a process.
//
// New starts nothing. Run reads until the channel ends, calls each handler in a
// goroutine of its own, and returns when the last of them has returned. No thread is
// blocked: Go's poller waits. Call, Done, Err and Close are safe for concurrent use.
//
// The wire, and what happens when a side dies: docs/internals/control.md.
package control
