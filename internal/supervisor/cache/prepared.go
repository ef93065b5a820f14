package cache

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

// Entries of prepared models are directories prepared/<key>: what the engine has written, and
// sums, as sha256sum(1) prints and checks them.
const (
	preparedName = "prepared"
	sumsName     = "SHA256SUMS"
	turnName     = ".turn" // locked by whoever prepares
)

// Preparer has models prepared.
type Preparer struct {
	Cache    string
	Readable bool // see Options
	Recipe   Recipe
	// Graph is the one of the files that an engine writes which is not shared.
	Graph string
	// Run has the model at source prepared into dir, which is empty.
	Run func(ctx context.Context, source, dir string) error
	// Take, unless it is nil, says that Run's process is another user, who must be given dir
	// before; what it has written is then copied: nobody but us may change an entry.
	Take func(dir string) error
}

// Prepare completes m by an entry that is whole: one that is there, else a new one, which makes
// made true. l then keeps the entry as it keeps the copy.
func (p *Preparer) Prepare(ctx context.Context, m *ipc.ModelFile, l *Lease) (made bool, err error) {
	path := filepath.Join(p.Cache, preparedName, p.Recipe.key(m))
	if p.use(path, m, l) {
		return false, nil
	}
	if err := p.makeDirectory(); err != nil {
		return false, err
	}
	turn, err := takeTurn(ctx, filepath.Dir(path))
	if err != nil {
		return false, err
	}
	defer turn.Close()
	if p.use(path, m, l) { // somebody else has made it meanwhile
		return false, nil
	}
	for range 2 { // a sweep may be faster than we are, once
		if err := p.fill(ctx, path, m); err != nil {
			return false, err
		}
		if p.use(path, m, l) {
			return true, nil
		}
	}
	return false, fmt.Errorf("what was written to %s is not what is read there", path)
}

func (p *Preparer) makeDirectory() error {
	dir := filepath.Join(p.Cache, preparedName)
	err := os.Mkdir(dir, 0o755)
	if os.IsExist(err) {
		err = nil
	}
	if err == nil && p.Readable {
		err = os.Chmod(dir, 0o755)
	}
	return err
}

// turnPoll is how often takeTurn looks.
const turnPoll = 50 * time.Millisecond

// takeTurn waits until nobody else prepares in dir: one at a time, whichever service it is of.
// The kernel gives the lock back for a service that dies.
func takeTurn(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, turnName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			return f, nil // or there is no flock(2) here: two may prepare the same
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(turnPoll):
		}
	}
}

// fill has the entry at path made.
func (p *Preparer) fill(ctx context.Context, path string, m *ipc.ModelFile) error {
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, newPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	hold, err := lease(tmp)
	if err != nil {
		return err
	}
	defer hold.Close()
	into := filepath.Join(tmp, "files") // what lies there is not ours yet
	if err := os.Mkdir(into, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if p.Take != nil {
		if err := p.Take(into); err != nil {
			return err
		}
	}
	if err := p.Run(ctx, m.Path, into); err != nil {
		return err
	}
	entry, err := os.MkdirTemp(dir, newPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(entry)
	held, err := lease(entry)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := p.seal(entry, into); err != nil {
		return err
	}
	if err := place(entry, path, whole); err != nil {
		return err
	}
	return syncDir(dir)
}

// seal makes an entry of what lies in from.
func (p *Preparer) seal(entry, from string) error {
	if err := adopt(entry, from, p.Take != nil); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(entry, p.Graph)); err != nil {
		return fmt.Errorf("nothing was prepared: %w", err)
	}
	if p.Readable { // before they are read: it changes their times
		if err := openToAll(p.Cache, entry); err != nil {
			return err
		}
	}
	var sums bytes.Buffer
	k := readKnown(p.Cache)
	defer k.save()
	names, err := filesOf(entry)
	if err != nil {
		return err
	}
	for _, name := range names {
		sum, err := k.synced(filepath.Join(entry, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, name)
	}
	path := filepath.Join(entry, sumsName)
	if err := os.WriteFile(path, sums.Bytes(), 0o644); err != nil {
		return err
	}
	if _, err := k.synced(path); err != nil {
		return err
	}
	if err := os.Chmod(entry, 0o755); err != nil {
		return err
	}
	return syncDir(entry)
}

// use completes m by the entry at path and has l keep it, if it is whole.
func (p *Preparer) use(path string, m *ipc.ModelFile, l *Lease) bool {
	dir, err := lease(path)
	if err != nil {
		return false
	}
	if !whole(path) {
		dir.Close()
		return false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // the least recently used entry is swept first
	m.Prepared, m.Shared = path, sizeBeside(path, p.Graph)
	l.dirs = append(l.dirs, leased{m.Digest, dir})
	return true
}

// sizeBeside returns the size of what lies in the entry at path beside its graph.
func sizeBeside(path, graph string) (n int64) {
	names, _ := filesOf(path)
	for _, name := range names {
		if st, err := os.Stat(filepath.Join(path, name)); err == nil && name != graph && name != sumsName {
			n += st.Size()
		}
	}
	return n
}

// whole tells whether the entry at path holds what was put there and nothing else.
func whole(path string) bool {
	sums, err := os.ReadFile(filepath.Join(path, sumsName))
	if err != nil {
		return false
	}
	want := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || !isDigest(sum) || name == sumsName {
			return false
		}
		want[name] = sum
	}
	names, err := filesOf(path)
	if err != nil || len(want) == 0 || len(names) != len(want)+1 {
		return false
	}
	k := readKnown(filepath.Dir(filepath.Dir(path)))
	defer k.save()
	for _, name := range names {
		if name == sumsName {
			continue
		}
		f, err := os.Open(filepath.Join(path, name))
		if err != nil {
			return false
		}
		sum, _, err := k.sum(f)
		f.Close()
		if err != nil || sum != want[name] {
			return false
		}
	}
	return true
}

// filesOf returns the names in dir, in order; anything but regular files is an error.
func filesOf(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return nil, &fs.PathError{Op: "use", Path: filepath.Join(dir, e.Name()), Err: fs.ErrInvalid}
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// synced returns the digest of the file at path once it is on its disk.
func (k *known) synced(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return "", err
	}
	sum, _, err := k.sum(f)
	return sum, err
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
