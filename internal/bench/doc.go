// Package bench measures experiments: what layers, workers and cores make of waits and of
// work.
//
// It starts throw-away services, of preforkd and, beside it, of FastAPI, on sockets in a
// private directory, sends each experiment's requests at one moment, and says in which
// relation the time to the last answer stands to one request and to their sum. Numbers are
// of that moment; none is stored. Services end with the function that started them, or with
// the thread that did.
//
// Called by cmd/bench. It never touches a service that it has not started.
package bench
