// Package lab spends time, in the three ways in which a request may: it waits without
// holding a thread, it blocks one, or it uses a core.
//
// It says what came of it: how long it waited, how much of a core it had, and when. A core's
// time is that of its thread's own clock, so that a request that shares its core with others
// takes as much longer as it would with work of its own.
//
// Called by worker/api, for the routes of preforkd lab. It knows no requests: whoever
// wants an end to it says so when it is asked.
//
// All functions are safe for concurrent use.
package lab
