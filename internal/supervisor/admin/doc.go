// Package admin is the admin socket: how operators and the preforkd commands see and
// steer a running service.
//
// It owns the protocol, HTTP/1.1 with JSON over a unix socket, both its ends (Server,
// Client), the types that cross it, the ring of recent events (Log), and the table in
// which people read a status. It decides nothing: what a command does is the Service's.
//
//	curl --unix-socket PATH http://preforkd/v1/status
//	curl --unix-socket PATH -X POST 'http://preforkd/v1/reload?dry_run=1&no_wait=1'
//	curl --unix-socket PATH -X POST 'http://preforkd/v1/stop?quick=1'
//	curl --unix-socket PATH 'http://preforkd/v1/events?after=17&follow=1'
//
// Who may use it is the file's mode, 0600, and nothing else. reload and events answer
// with one JSON object a line while they go on; the last line of reload is its result.
// An error is an ipc.Failure in JSON.
//
// Called by the supervisor, which implements Service and runs the server beside its
// loop, and by the commands. It never blocks a Service for a client: a client that does
// not read loses lines, then its connection.
//
// Server, Client and Log are safe for concurrent use.
package admin
