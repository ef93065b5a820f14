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

// store puts the files beside m.Source into the cache and completes m. The digest is
// taken of the copy, so it names what will be loaded even if the source changes
// meanwhile; a source that changed while it was read is refused.
func store(cache string, m *ipc.ModelFile) error {
	source := filepath.Dir(m.Source)
	if d, n, err := digest(source); err != nil {
		return modelsFailure(source, err)
	} else if have, _, err := digest(entry(cache, d)); err == nil && have == d {
		m.Digest, m.Bytes, m.Path = d, n, filepath.Join(entry(cache, d), ModelFileName)
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Join(cache, "models"), ".new-")
	if err != nil {
		return cacheFailure(cache, err)
	}
	defer os.RemoveAll(tmp)
	if err := copyTree(tmp, source); err != nil {
		return err
	}
	if m.Digest, m.Bytes, err = digest(tmp); err != nil {
		return cacheFailure(cache, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return cacheFailure(cache, err)
	}
	final := entry(cache, m.Digest)
	if err := place(tmp, final, m.Digest); err != nil {
		return cacheFailure(cache, err)
	}
	m.Path = filepath.Join(final, ModelFileName)
	return nil
}

func entry(cache, digest string) string { return filepath.Join(cache, "models", digest) }

// place renames tmp to final. Somebody else may have been faster with the same
// content; what lies there with other content is damaged and makes way. Workers that
// run from it keep their open files.
func place(tmp, final, want string) error {
	err := os.Rename(tmp, final)
	if err == nil || !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	if have, _, err := digest(final); err == nil && have == want {
		return nil
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: tmp, New: final, Err: err}
	}
	return nil
}

// digest returns the SHA-256 over names, sizes and contents of the files below dir,
// and their size together.
func digest(dir string) (string, int64, error) {
	all := sha256.New()
	var total int64
	err := walk(dir, func(name string) error {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		one := sha256.New()
		n, err := io.Copy(one, f)
		if err != nil {
			return err
		}
		total += n
		fmt.Fprintf(all, "%q %d %x\n", name, n, one.Sum(nil))
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(all.Sum(nil)), total, nil
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
