// Package upstream asks other services, which requests wait for: over HTTP/1.1, and Redis.
//
// It owns the connections to one service: they are kept between two exchanges, looked at before
// they are used again, and closed when they have been idle for a while. An exchange ends by its
// deadlines, by its end or by Call.Abort, and says in an *Error what came of it. Nothing that a
// service answers is believed: lengths that contradict each other, what is no HTTP or no RESP,
// and what is larger than allowed end the exchange and its connection.
//
// It also says which fields of a header are for one connection only, of either side.
//
// Called by worker/api, which bounds how many exchanges there are at once, decides by when each
// has to end, and has the table from an Error to a status. It never decides who may ask for what,
// follows no redirect, and starts no goroutine.
//
// All methods of HTTP and Redis are safe for concurrent use; a Call and an Answer belong to one
// goroutine, except that Abort may be called by any.
package upstream
