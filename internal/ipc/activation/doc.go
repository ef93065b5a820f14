// Package activation makes listening sockets and passes them on as inherited
// descriptors, with the environment of systemd's socket activation (sd_listen_fds(3)),
// so that any program that knows it can be a worker.
//
// The supervisor binds (Bind) or inherits (Inherited) sockets and gives them to its
// workers; a worker inherits them and turns them into net.Listeners.
//
// A Socket is a bare descriptor number, never an *os.File: a file would register the
// shared socket with the process's own epoll instance and wake it for each connection.
// It is set non-blocking once, when it is made, and stays so: the flag belongs to the
// open file description that all processes share (net.TCPListener.File followed by Fd
// would clear it and freeze every worker's accept).
//
// Nothing here starts a goroutine; a Socket belongs to one goroutine.
package activation
