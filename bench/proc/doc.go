// Package proc starts a server for a measurement, waits until it is ready, reads what
// its process tree costs, and ends it.
//
// A Proc runs in a session of its own, so that a terminal's Ctrl-C reaches only the
// benchmark, which then stops what it started. Stop ends every process of the tree by
// its pid, also those that are in sessions of their own.
//
// Called by the benchmarks. One goroutine uses a Proc; those that reap the process and
// copy its output end with it, and Stop waits for them.
package proc
