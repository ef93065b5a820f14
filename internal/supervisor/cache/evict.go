package cache

import (
	"cmp"
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

// holdPrepared leases what is prepared of m, nil if nothing is. What is damaged loses its name,
// so that nobody loads it; whoever has it mapped keeps it as it is.
func holdPrepared(m ipc.ModelFile) *os.File {
	if m.Prepared == "" {
		return nil
	}
	dir, err := lease(m.Prepared)
	if err != nil {
		return nil
	}
	if whole(m.Prepared) {
		return dir
	}
	if same(dir, m.Prepared) { // else somebody has just replaced it
		_ = putAside(filepath.Dir(m.Prepared), m.Prepared)
	}
	dir.Close()
	return nil
}

// putAside gives the entry at path a name by which Evict will find it.
func putAside(dir, path string) error {
	aside, err := os.MkdirTemp(dir, oldPrefix)
	if err != nil {
		return err
	}
	if err := unix.Rename(path, aside); err != nil { // package os refuses a directory that exists
		os.Remove(aside)
		return err
	}
	return nil
}

// Evict removes prepared models that nobody has a lease on, the least recently used first, until
// no more than limit bytes are left, and returns how many those were. What is left over of
// crashes it removes, too.
func Evict(cache string, limit int64) (removed int, err error) {
	dir := filepath.Join(cache, preparedName)
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("evict prepared models: %w", err)
	}
	type candidate struct {
		path  string
		bytes int64
		used  time.Time
	}
	var entries []candidate
	var bad []error
	total := int64(0)
	for _, e := range list {
		name, path := e.Name(), filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			continue // gone
		}
		switch {
		case isDigest(name):
			n, _ := size(path)
			entries = append(entries, candidate{path, int64(n), info.ModTime()})
			total += int64(n)
		case strings.HasPrefix(name, oldPrefix), strings.HasPrefix(name, newPrefix) && time.Since(info.ModTime()) >= newFor:
			_, err := sweepOne(dir, path)
			bad = append(bad, err)
		}
	}
	slices.SortFunc(entries, func(a, b candidate) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
	for _, e := range entries {
		if total <= limit {
			break
		}
		ok, err := sweepOne(dir, e.path)
		bad = append(bad, err)
		if ok {
			removed++
			total -= e.bytes
		}
	}
	return removed, errors.Join(bad...)
}
