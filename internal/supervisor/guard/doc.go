// Package guard decides when memory is short, and what then gives some back: whether a sample
// of the machine's memory, or of a cgroup's, is one of calm, of tight or of critical memory,
// how often a worker may be recycled for it, and which.
//
// It owns two thresholds for each level, one to enter it and one to leave it, and the pace of
// recycling. Called by the supervisor's loop, once a second; a Watch and a Pace belong to that.
// It reads nothing and stops nobody. Pure.
package guard
