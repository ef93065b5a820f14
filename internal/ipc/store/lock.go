package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockName is the file that is locked. It is never removed: a lock on a file without a name
// keeps nobody out.
const lockName = "lock"

// held are the locks of this process. A file that nobody refers to is closed by the collector,
// and its lock is gone.
var held []*os.File

// Lock takes the store for this process, until that ends. It waits while another has it, and
// calls waits first: two processes that write to one store lose what the other has written.
func Lock(dir string, waits func()) error {
	f, taken, err := tryLock(dir)
	if err != nil {
		return err
	}
	if taken {
		if f, err = open(dir); err != nil {
			return err
		}
		waits()
		for {
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if err != nil {
			f.Close()
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
	held = append(held, f)
	return nil
}

// tryLock takes the store if nobody has it; the caller closes the file.
func tryLock(dir string) (f *os.File, taken bool, err error) {
	if f, err = open(dir); err != nil {
		return nil, false, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, false, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, true, nil
	}
	return nil, false, fmt.Errorf("lock %s: %w", f.Name(), err)
}

func open(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the task queue's store: %w", err)
	}
	return f, nil
}
