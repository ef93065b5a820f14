package store

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Space is what the file system of a directory has.
type Space struct {
	Total, Free uint64 // bytes; Free is what this user may write
	Memory      bool   // it is in memory, and gone with the machine's power
}

// SpaceOf looks at the file system of dir.
func SpaceOf(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, fmt.Errorf("look how much room %s has: %w", dir, err)
	}
	size := uint64(st.Bsize)
	return Space{
		Total: st.Blocks * size, Free: st.Bavail * size,
		Memory: st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC,
	}, nil
}
