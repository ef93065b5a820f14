// Package load generates HTTP/1.1 requests and accounts for every one of them: the
// client of tests, benchmarks and preforkd plan.
//
// A Generator owns a fixed number of clients. A client has one connection at a time
// and one request in flight on it. In a closed loop each client sends its next request
// when it has the answer to the last, or a think time later. In an open loop (a Rate)
// requests arrive by the clock whether or not earlier ones were answered: they wait
// in the generator while every client is busy, and latency counts from the scheduled
// moment, so that a stall of the service shows in every request that it delayed.
//
// It never sends a request twice. Every request ends as exactly one of: an answer, a
// failure of one Class, or abandoned because the caller's context ended. A connection
// that the service closed between two requests is no failure: the client looks before
// it writes, counts an idle close, and dials.
//
// The header X-Preforkd-Worker (pool/slot/pid) tells which worker answered; failures
// are charged to the worker that answered last on the same connection.
//
// Called by tests, benchmarks and the supervisor's command line. It imports nothing of ours, and never follows
// redirects, decompresses, or speaks TLS.
//
// Run starts the clients and returns when they have ended. Stop, Progress and the Wait
// methods may be called from any goroutine; callbacks in Options are called from many.
package load
