// Package machine reads what this process may use, cores and memory, from gopsutil and the
// files of cgroups, and what became of it: how many processes the kernel killed for want of
// memory.
//
// Called by the supervisor, which hands the numbers to supervisor/sizing. It decides
// nothing and keeps nothing. Safe for concurrent use.
package machine
