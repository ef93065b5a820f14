// Package e2e tests the service as its users meet it: real programs, sockets, signals
// and files.
//
// It exports nothing. Fault storms are in files named faults_*; a small form of each runs by
// default, full counts with PREFORKD_SOAK=1. toll knows whom a death may cost.
package e2e
