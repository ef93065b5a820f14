// Package handoff passes client connections between worker processes.
//
// It owns one queue: a SOCK_SEQPACKET pair that every worker inherits with both ends.
// Put sends a connection's descriptor with a message of fixed size, Take receives one.
// A connection has one owner at any moment: once Put has returned nil it is no longer
// the caller's, and until then it is. While it waits in the queue the kernel owns it:
// it lives as long as some process holds the queue, whoever dies meanwhile.
//
// A connection is passed on between two requests (Idle), or with a whole request that nobody has
// read (Waiting): a pool of workers has one queue for each.
//
// Called by worker/accept; the supervisor creates the pair, keeps it, and looks at how many wait.
// It never reads a connection's bytes and never decides who gives or takes one.
//
// All methods are safe for concurrent use, but Wait by one goroutine at a time. Nothing
// here starts a goroutine. The races: docs/internals/handoff.md.
package handoff
