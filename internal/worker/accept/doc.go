// Package accept is the worker's end of the shared listening socket: a net.Listener
// that holds a bounded number of connections and can stop without losing one.
//
// It owns two rules. While a worker holds its maximum it does not accept, so that new
// connections go to another worker or wait in the kernel, instead of being refused.
// When it stops, what the kernel has already accepted for us is still served: closing
// the last listener would reset it.
//
// Called by the worker, which hands it to fasthttp. It never reads from a connection.
//
// All methods are safe for concurrent use.
package accept
