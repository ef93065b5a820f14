// Package handoff passes client connections between worker processes.
//
// It owns one queue: a SOCK_SEQPACKET pair that every worker inherits with both ends.
// Put sends a connection's descriptor with a message of fixed size, Take receives one.
// A connection has one owner at any moment: once Put has returned nil it is no longer
// the caller's, and until then it is. While it waits in the queue the kernel owns it:
// it lives as long as some process holds the queue, whoever dies meanwhile.
//
// Called by worker/accept; the supervisor only creates the pair and inherits it.
// It never reads a connection's bytes and never decides who gives or takes one.
//
// All methods are safe for concurrent use, but Wait by one goroutine at a time. Nothing
// here starts a goroutine. The races: docs/internals/handoff.md.
package handoff
