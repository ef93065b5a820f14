package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

// Lease keeps copies of models in the cache: while it is held, no Sweep, of this service
// or of another one that shares the cache, removes them. It is a shared flock(2) on each
// directory, which the kernel gives back for a service that dies.
type Lease struct{ dirs []leased }

// leased is the directory of one copy, and the digest that it is of.
type leased struct {
	digest string
	dir    *os.File
}

// Keep gives those copies back that none of models is of, and tells whether any is left.
func (l *Lease) Keep(models []ipc.ModelFile) bool {
	var kept []leased
	for _, d := range l.dirs {
		if slices.ContainsFunc(models, func(m ipc.ModelFile) bool { return m.Digest == d.digest }) {
			kept = append(kept, d)
		} else {
			d.dir.Close()
		}
	}
	l.dirs = kept
	return len(kept) > 0
}

// Descriptors are those that hold it: a process that keeps others of them holds it, too.
func (l *Lease) Descriptors() (fds []int) {
	if l == nil {
		return nil
	}
	for _, d := range l.dirs {
		fds = append(fds, int(d.dir.Fd()))
	}
	return fds
}

// Close gives the lease back.
func (l *Lease) Close() {
	if l == nil {
		return
	}
	for _, d := range l.dirs {
		d.dir.Close()
	}
	l.dirs = nil
}

// Hold leases the copies of models that were collected before. What is missing or has
// other content by now is named in the error, all of it, with status 69. A prepared model that
// has is removed: its workers load the copy.
func Hold(models []ipc.ModelFile) (*Lease, error) {
	l := &Lease{}
	var bad []string
	for _, m := range models {
		dir, wrong := holdOne(m)
		if dir != nil {
			l.dirs = append(l.dirs, leased{m.Digest, dir})
		}
		if dir := holdPrepared(m); dir != nil {
			l.dirs = append(l.dirs, leased{m.Digest, dir})
		}
		for _, w := range wrong {
			bad = append(bad, fmt.Sprintf("model %s, version %s: %s", m.Name, m.Version, w))
		}
	}
	if len(bad) > 0 {
		l.Close()
		return nil, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "model cache: " + strings.Join(bad, "\n"),
			Try: "put the files back, or their version into the model directory and preforkd reload",
		}
	}
	return l, nil
}

// holdOne leases the copy of m, and says what is wrong with it.
func holdOne(m ipc.ModelFile) (dir *os.File, wrong []string) {
	path := filepath.Dir(m.Path)
	dir, err := lease(path)
	if err != nil {
		return nil, []string{err.Error()}
	}
	for _, name := range m.Files {
		if _, err := os.Stat(filepath.Join(path, name)); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) > 0 {
		return dir, wrong
	}
	k := readKnown(filepath.Dir(filepath.Dir(path)))
	defer k.save()
	switch c, err := digest(k, path); {
	case err != nil:
		wrong = append(wrong, err.Error())
	case c.digest != m.Digest:
		wrong = append(wrong, path+" has other content than was put there: its digest is "+c.digest)
	}
	return dir, wrong
}

// lease opens and locks the directory at path. It waits for whoever is removing it.
func lease(path string) (*os.File, error) {
	for {
		dir, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		// A file system without flock(2) refuses Sweep's lock as well.
		_ = unix.Flock(int(dir.Fd()), unix.LOCK_SH)
		if same(dir, path) {
			return dir, nil
		}
		dir.Close() // somebody has just removed or replaced it
	}
}

// same tells whether path still leads to dir.
func same(dir *os.File, path string) bool {
	a, err := dir.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Names in a cache of what is no copy of a model: one that is being made, and one that is
// being removed.
const (
	newPrefix = ".new-"
	oldPrefix = ".old-"
)

// newFor is how long a copy that is being made is left alone, lock or not: its maker locks
// it a moment after it has made it.
const newFor = time.Hour

// Sweep removes from the cache what nobody has a lease on, and returns how many copies of
// models that were.
func Sweep(cache string) (removed int, err error) {
	models := filepath.Join(cache, "models")
	entries, err := os.ReadDir(models)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, cacheFailure(cache, err)
	}
	var bad []error
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(models, name)
		switch {
		case strings.HasPrefix(name, newPrefix):
			if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < newFor {
				continue
			}
		case !strings.HasPrefix(name, oldPrefix) && !isDigest(name):
			continue // not ours
		}
		ok, err := sweepOne(models, path)
		if err != nil {
			bad = append(bad, err)
		}
		if ok && isDigest(name) {
			removed++
		}
	}
	return removed, errors.Join(bad...)
}

// sweepOne removes the directory at path unless somebody has a lease on it. It takes its
// name away first: nobody finds half of it.
func sweepOne(models, path string) (removed bool, err error) {
	dir, err := os.Open(path)
	if err != nil {
		return false, nil // gone, or not this user's
	}
	defer dir.Close() // gives the lock back
	if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !same(dir, path) {
		return false, nil
	}
	if !strings.HasPrefix(filepath.Base(path), oldPrefix) {
		aside, err := os.MkdirTemp(models, oldPrefix)
		if err != nil {
			return false, fmt.Errorf("sweep model cache: %w", err)
		}
		if err := unix.Rename(path, aside); err != nil { // package os refuses a directory that exists
			os.Remove(aside)
			return false, fmt.Errorf("sweep model cache: %w", &os.LinkError{Op: "rename", Old: path, New: aside, Err: err})
		}
		path = aside
	}
	if err := os.RemoveAll(path); err != nil {
		return false, fmt.Errorf("sweep model cache: %w", err)
	}
	return true, nil
}

// isDigest tells whether name is that of a copy.
func isDigest(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}
