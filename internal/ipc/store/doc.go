// Package store knows the directory of the embedded task queue: who owns it, and how the
// queue in it is reached.
//
// It owns the lock, which one broker at a time holds, and the file with port and token, which
// whoever comes first writes and nobody changes while a broker holds the lock. The rest of the
// directory is the broker's.
//
// Called by the supervisor, which tells its workers port and token, and by the broker. It never
// looks at what is queued.
//
// All functions are safe for concurrent use, also by several processes.
package store
