package control

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// sendBuffer is asked for, so that one message of MaxMessage always fits, whatever
// net.core.wmem_default is: a longer one than the buffer is refused (EMSGSIZE, send(2)).
const sendBuffer = 4 * MaxMessage

// Pair makes a channel: one descriptor for the supervisor, one for a worker to inherit.
// Both are the caller's, close-on-exec and non-blocking. Close the worker's as soon as
// the worker has been started: while it is open here, the worker's death is no
// end-of-file.
func Pair() (supervisorFD, workerFD int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make a control channel: %w", err)
	}
	for _, fd := range fds {
		// Up to net.core.wmem_max; the default of both is 208 KiB, so that less
		// than a message is a choice of the machine's administrator.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	return fds[0], fds[1], nil
}
