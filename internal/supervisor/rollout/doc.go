// Package rollout is one reload: it replaces the workers of one generation by those of
// the next, or puts everything back.
//
// It also decides how a pool of a generation that stays is made larger or smaller
// (Resize).
//
// It owns every decision of a reload: when the canary has proved itself, which worker
// starts or leaves next, when there is no way back, and what a failure undoes. The
// supervisor feeds in events and carries out the actions; the clocks, processes,
// connections and counters behind them are the supervisor's.
//
// Called by the supervisor's loop. Pure: it reads no clock and starts nothing, and the
// same events give the same actions.
//
// A Rollout belongs to one goroutine. The phases as a table, with what each failure
// leads to: docs/internals/rollout.md.
package rollout
