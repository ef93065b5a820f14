// Package peer tells whether the other end of a connection has gone: closed it, or its
// sending half, or reset it (POLLRDHUP in poll(2)). It reads nothing.
//
// A client that has shut down only its sending half counts as gone: whoever waits for an
// answer keeps it open, and a server cannot tell the two apart.
//
// Called by worker/api. It starts nothing. A Watch is for one goroutine at a time; Gone is
// safe for concurrent use.
package peer
