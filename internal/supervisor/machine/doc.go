// Package machine reads what this process may use: cores and memory, from gopsutil.
//
// Called by the supervisor, which hands the numbers to supervisor/sizing. It decides
// nothing and keeps nothing. Safe for concurrent use.
package machine
