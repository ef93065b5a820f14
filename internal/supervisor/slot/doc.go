// Package slot is one worker's life, and when its slot starts the next one.
//
// It owns three decisions: what follows when something happens to a worker (Next, an
// array indexed by state and event), how long a slot waits before it starts a
// successor of a worker that crashed (History: crash budget, back-off, decay), and which
// model such a crash is put down to, and when that is one too many (End, Deaths).
//
// Called by the supervisor's loop, which feeds in events and carries out the actions.
// Pure: it reads no clock, draws no random number and starts nothing; times are
// durations since an origin of the caller's, jitter comes in as an argument.
//
// Values belong to one goroutine. The table with its reasons: docs/internals/slot.md.
package slot
