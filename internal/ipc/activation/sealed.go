package activation

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sealed returns a descriptor on memory that holds data and can never be changed
// (memfd_create(2), F_ADD_SEALS in fcntl(2)). It has no path and needs no directory.
func Sealed(name string, data []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("make memory file %s: %w", name, err)
	}
	for rest := data; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("write memory file %s: %w", name, err)
		}
		rest = rest[n:]
	}
	const all = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, all); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal memory file %s: %w", name, err)
	}
	return fd, nil
}

// ReadSealed returns what Sealed wrote, and closes fd. It does not move the file
// offset, which every process that inherited the descriptor shares.
func ReadSealed(fd int) ([]byte, error) {
	f := os.NewFile(uintptr(fd), "sealed memory file")
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read inherited descriptor %d: %w", fd, err)
	}
	data := make([]byte, st.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, st.Size()), data); err != nil {
		return nil, fmt.Errorf("read inherited descriptor %d: %w", fd, err)
	}
	return data, nil
}

// Lifeline returns the two ends of a pipe: workers inherit the reading one and wait
// for end-of-file (AwaitEnd), which the kernel delivers when the last process that
// holds the other end has ended, however it ended. (PR_SET_PDEATHSIG would be tied to
// the thread that forked, prctl(2), and Go moves goroutines between threads.)
func Lifeline() (read, write int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, fmt.Errorf("make the lifeline: %w", err)
	}
	return p[0], p[1], nil
}

// AwaitEnd blocks until the lifeline's other end is gone. It takes over fd.
func AwaitEnd(fd int) {
	_ = unix.SetNonblock(fd, true) // so that Go's poller waits, not a thread
	f := os.NewFile(uintptr(fd), "lifeline")
	defer f.Close()
	_, _ = io.Copy(io.Discard, f)
}

// Close closes a bare descriptor.
func Close(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// Duplicate returns another descriptor of what fd is, close-on-exec. The caller owns it.
func Duplicate(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}
