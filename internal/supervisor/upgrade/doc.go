// Package upgrade starts another program as this process's successor, by tableflip, and
// tells a successor whose it is.
//
// tableflip carries one descriptor, that of the channel to the main process; everything else
// is fetched there. It passes on whether the successor is ready, and that its predecessor
// has left. Everything that may fail happens before Ready: after it there is no way back.
//
// Called by the supervisor. It decides nothing about generations.
//
// New may be called once a process. Upgrade is called by one goroutine at a time; it puts
// os.Args, os.Stderr and a variable of the environment in place of others while it starts the
// program, so nobody else may use them then.
package upgrade
