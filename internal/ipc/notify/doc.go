// Package notify speaks sd_notify(3), both ends: newline-separated KEY=value texts in
// datagrams to the socket that NOTIFY_SOCKET names.
//
// The supervisor serves a socket for its workers (Listen); a worker, and a supervisor
// under systemd, is a client (FromEnvironment).
//
// The server tells the sender by the kernel's credentials (SCM_CREDENTIALS, unix(7)),
// never by what the text says. It understands every text and decides nothing: keys it
// does not know reach the handler like the others. Descriptors that come along are
// closed once the handler has returned, which is all that BARRIER=1 asks for.
//
// Between a main process and its supervisors the channel is a socket pair (Pair, Serve,
// DialFD), and the server keeps descriptors for them: Store, Remove, Fetch, Barrier.
//
// A Client is safe for concurrent use. A Server's handler runs in one goroutine, which
// Close ends and waits for.
package notify
