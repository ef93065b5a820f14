// Package sizing decides how many workers a machine carries, and says why.
//
// Called by the supervisor with what supervisor/machine found. Pure: arithmetic on its
// arguments. Safe for concurrent use.
package sizing
