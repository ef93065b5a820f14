package cache

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// adopt puts the files in from into to, which is empty. Where another user has made them they
// are copied: that one may have them open, and change them later. It must be able neither to
// have us read what it may not read nor to have us wait.
func adopt(to, from string, copied bool) error {
	names, err := filesOf(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		src, dst := filepath.Join(from, name), filepath.Join(to, name)
		if copied {
			err = copyTheirs(dst, src)
		} else {
			err = os.Rename(src, dst)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyTheirs copies one file, by reflink where the file system can (ioctl_ficlone(2)).
func copyTheirs(to, from string) error {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.Mode().IsRegular() || st.Nlink != 1 {
		return &fs.PathError{Op: "use", Path: from, Err: fs.ErrInvalid}
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer dst.Close()
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		if _, err := io.Copy(dst, io.LimitReader(src, info.Size())); err != nil {
			return err
		}
	}
	return dst.Close()
}
