// Package plan compares ways to lay out a service on a machine: pods and workers, the memory
// that they need, the requests that they carry at a p99, and what the death of one costs.
//
// Called by preforkd plan, with numbers that were given or measured. It measures nothing and
// decides nothing for a running service: supervisor/sizing does. Pure: arithmetic on its
// arguments, and text. Safe for concurrent use.
package plan
