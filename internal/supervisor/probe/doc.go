// Package probe asks a worker that is not ours whether it is well: one request over HTTP,
// whose answer must come from that worker.
//
// A socket of the worker's own is asked plainly. At a socket that workers share any of
// them may answer: there a connection counts only if a process of the worker's session
// has accepted it (owner.go), and one that another worker accepted is closed before
// anything is sent, so that it never sees a request.
//
// Called by the supervisor, in a goroutine for each worker. It decides nothing: when a
// worker is ready or hung is the caller's affair. Safe for concurrent use.
package probe
