// Package broker is the process that keeps the queue of background tasks on this machine: a
// nats-server with JetStream, embedded.
//
// It owns the store's directory, from the moment that it has its lock: it starts the server,
// looks whether the server has found again what lies there, lets clients in, and watches whether
// what they send can be written. A store that has lost a stream is never served: a client would
// make the stream anew over what is left of it.
//
// Started by the supervisor, which it leaves when that dies; cmd/broker wraps it. It never knows
// what a task is.
//
// Run is called once in a process.
package broker
