// Package accept is where a worker's connections come from and where they go: from the
// shared listening sockets and from workers that leave, and, when this worker leaves,
// to those that stay.
//
// It owns three rules. While a worker holds its maximum it does not accept, so that new
// connections go to another worker or wait in the kernel, instead of being refused.
// A connection may be given away only between two requests, when nothing of the next
// one has been read: so nothing can be lost. And one that nobody takes is served here.
//
// Called by the worker, which hands Listeners and Adopters to fasthttp and reports each
// connection's state back. It never looks at what it reads, never ends a connection
// by itself (worker/api does, with Cut), and never decides when to leave.
//
// All methods are safe for concurrent use. Nothing here starts a goroutine: connections
// are given away by those that read them. The races: docs/internals/handoff.md.
package accept
