package activation

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Directory returns a descriptor of the directory at path, by which whoever inherits it reaches
// what is in there, as /proc/self/fd/N/NAME, and nothing above it (O_PATH in open(2)).
func Directory(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open directory %s: %w", path, err)
	}
	return fd, nil
}
