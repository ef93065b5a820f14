// Package worker is the worker program: it loads the models of its generation, tells
// the supervisor that it is ready, serves HTTP on the inherited sockets, and leaves
// when it is told to, or when the supervisor has died.
//
// It wires its parts and decides only when to leave. What it was started with comes
// from the environment and from inherited descriptors (ipc, ipc/activation).
//
// Called by cmd/worker. Run may be called once per process.
package worker
