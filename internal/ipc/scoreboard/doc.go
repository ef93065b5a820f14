// Package scoreboard is the memory that every process shares: one row of counters,
// gauges and identity per worker process, a latency histogram per row, and the words
// that say which generation and which supervisor are in charge.
//
// It owns the layout of the file (memfd_create(2), sealed against shrinking and
// growing) and who may have a row. Create makes a board, Open maps one that was
// inherited; a supervisor claims and settles rows, a worker attaches to the one whose
// ticket it was given and holds its *Row for life. A process that does not understand
// a board gets an error from Open and never misreads it.
//
// It never decides: states, reasons and what follows from a stopped clock are the
// supervisor's. It takes no lock, and what a request needs (counters, gauges, stamps,
// Observe) makes no system call and allocates nothing.
//
// All methods are safe for concurrent use, between processes too, except Close. Who
// writes what, and the races: docs/internals/scoreboard.md.
package scoreboard
