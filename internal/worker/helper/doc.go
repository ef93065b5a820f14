// Package helper is a worker's side of one pool of helpers: programs in any language that answer
// the Open Inference Protocol at a Unix socket each (docs/helpers.md).
//
// It owns which helper a request goes to, the one with the fewest from this worker, how many each
// has at once, who waits while all have as many as they may, and the connections, which are kept
// between requests. Which helpers there are it reads from the scoreboard; the supervisor starts,
// probes and ends them.
//
// Called by worker/api. It knows no tensors: bodies go and come as bytes. It never asks twice: a
// helper may have done half of what it was asked. It starts no goroutine.
//
// All methods of Pool are safe for concurrent use; a Conn and an Answer belong to one goroutine.
package helper
