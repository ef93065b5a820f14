// Package task is the client's side of the queue of background tasks: durable, on JetStream, of
// this machine's broker or of a cluster.
//
// It owns what a task is: its id, its record, its states, and which of two that finish it is the
// one that counts: the first whose compare-and-swap of the record succeeds. A task runs at least
// once and has one visible outcome. docs/internals/tasks.md has the streams, the states and the
// races.
//
// Called by worker/api, which submits and asks, and by package worker, which gives it what runs a
// task. It never runs a model, and knows no HTTP but the status of an outcome.
//
// All methods are safe for concurrent use.
package task
