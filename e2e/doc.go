// Package e2e tests the service as its users meet it: real programs, sockets, signals
// and files.
//
// It exports nothing. With PREFORKD_SOAK=1 the fault storms run with full counts.
package e2e
