package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

var errReadOnly error = syscall.EROFS

// store puts the files beside m.Source into the cache, completes m and returns the copy's
// directory, leased. The digest is taken of the copy, so it names what will be loaded even
// if the source changes meanwhile; a source that changed while it was read is refused.
func store(cache string, k *known, m *ipc.ModelFile) (*os.File, error) {
	source := filepath.Dir(m.Source)
	c, err := digest(k, source)
	if err != nil {
		return nil, modelsFailure(source, err)
	}
	if dir := stored(cache, k, c, m); dir != nil {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(filepath.Join(cache, "models"), newPrefix)
	if err != nil {
		return nil, cacheFailure(cache, err)
	}
	defer os.RemoveAll(tmp)
	dir, err := lease(tmp)
	if err != nil {
		return nil, cacheFailure(cache, err)
	}
	if err := fill(tmp, source, m, cache, k); err != nil {
		dir.Close()
		return nil, err
	}
	m.Path = filepath.Join(entry(cache, m.Digest), filepath.Base(m.Source))
	for {
		err := place(tmp, entry(cache, m.Digest), holds(k, m.Digest))
		if err == nil && same(dir, entry(cache, m.Digest)) {
			return dir, nil
		}
		if err != nil {
			dir.Close()
			return nil, cacheFailure(cache, err)
		}
		// Somebody else was faster; unless a sweep was faster than us in turn, that is the copy.
		if theirs := stored(cache, k, copied{digest: m.Digest, bytes: m.Bytes, files: m.Files}, m); theirs != nil {
			dir.Close()
			return theirs, nil
		}
	}
}

// fill copies source to tmp and tells m what was copied.
func fill(tmp, source string, m *ipc.ModelFile, cache string, k *known) error {
	if err := copyTree(tmp, source); err != nil {
		return err
	}
	c, err := digest(k, tmp)
	if err != nil {
		return cacheFailure(cache, err)
	}
	m.Digest, m.Bytes, m.Files = c.digest, c.bytes, c.files
	if err := os.Chmod(tmp, 0o755); err != nil {
		return cacheFailure(cache, err)
	}
	return nil
}

// stored returns the copy of c, leased, and completes m; nil if there is none that is whole.
func stored(cache string, k *known, c copied, m *ipc.ModelFile) *os.File {
	path := entry(cache, c.digest)
	dir, err := lease(path)
	if err != nil {
		return nil
	}
	if have, err := digest(k, path); err != nil || have.digest != c.digest {
		dir.Close()
		return nil
	}
	m.Digest, m.Bytes, m.Files, m.Path = c.digest, c.bytes, c.files, filepath.Join(path, filepath.Base(m.Source))
	return dir
}

func entry(cache, digest string) string { return filepath.Join(cache, "models", digest) }

// holds returns what tells whether the copy at a path is the one of that digest.
func holds(k *known, want string) func(path string) bool {
	return func(path string) bool {
		have, err := digest(k, path)
		return err == nil && have.digest == want
	}
}

// place renames tmp to final. Somebody else may have been faster with the same
// content; what lies there and is not good is damaged and makes way. Workers that
// run from it keep their open files.
func place(tmp, final string, good func(path string) bool) error {
	for {
		err := os.Rename(tmp, final)
		if err == nil || !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
		err = exchange(tmp, final, good)
		if !errors.Is(err, fs.ErrNotExist) { // else it has just been swept
			return err
		}
	}
}

// exchange puts tmp in the place of final unless that is as it should be. Nobody exchanges
// or sweeps final meanwhile: of two that replace it, the later one would take away what the
// earlier one has leased.
func exchange(tmp, final string, good func(path string) bool) error {
	models, err := os.Open(filepath.Dir(final))
	if err != nil {
		return err
	}
	defer models.Close() // gives the lock back
	_ = unix.Flock(int(models.Fd()), unix.LOCK_EX)
	there, err := lease(final)
	if err != nil {
		return err
	}
	defer there.Close()
	if good(final) {
		return nil
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: tmp, New: final, Err: err}
	}
	return nil
}

// copied is what lies in a directory.
type copied struct {
	digest string // SHA-256 over names, sizes and contents of its files
	bytes  int64  // of the files together
	files  []string
}

// digest reads the files below dir, but those that k knows.
func digest(k *known, dir string) (c copied, err error) {
	all := sha256.New()
	err = walk(dir, func(name string) error {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		one, n, err := k.sum(f)
		if err != nil {
			return err
		}
		c.bytes += n
		c.files = append(c.files, name)
		fmt.Fprintf(all, "%q %d %s\n", name, n, one)
		return nil
	})
	c.digest = hex.EncodeToString(all.Sum(nil))
	return c, err
}

// walk calls file for each regular file below dir, in lexical order, by its name
// relative to dir. Links are followed to files, as Kubernetes' volumes need.
func walk(dir string, file func(name string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return file(name)
	})
}

func copyTree(to, from string) error {
	return walk(from, func(name string) error {
		dst := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return cacheFailure(to, err)
		}
		return copyFile(dst, filepath.Join(from, name))
	})
}

// copyFile reflinks where the file system can (ioctl_ficlone(2)), else copies.
func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return modelsFailure(from, err)
	}
	defer src.Close()
	before, err := src.Stat()
	if err != nil {
		return modelsFailure(from, err)
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return cacheFailure(to, err)
	}
	defer dst.Close()
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		if _, err := io.Copy(dst, src); err != nil {
			return cacheFailure(to, err)
		}
	}
	after, err := os.Stat(from)
	if err != nil || !os.SameFile(before, after) || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return &ipc.Failure{
			Exit: ipc.ExitTryAgain, What: "models: " + from + " changed while it was copied",
			Try: "write a new version beside the old one and rename it into place",
		}
	}
	if err := dst.Close(); err != nil {
		return cacheFailure(to, err)
	}
	return nil
}
