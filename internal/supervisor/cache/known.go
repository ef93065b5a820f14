package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// knownName is the file in a cache that has the digests of files that were read before. It is
// made anew when it is lost.
const knownName = "known"

// maxKnown is how many files are remembered, the last that were read.
const maxKnown = 4096

// known are the digests of files by what they were when they were read: whoever writes to a file changes
// its times, and nobody can set its ctime back (inode(7)). A file that is still what it was has the content
// that it had, and is not read again: of large models that is most of a start. Not safe for concurrent use.
type known struct {
	path string
	sums map[identity]string
	used []identity // in the order in which they are forgotten
	more bool       // than the file has
}

// identity is a file in one state.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // ns since 1970
}

// readKnown returns what is known in a cache: where nothing is, or it cannot be read, every file is read.
func readKnown(cache string) *known {
	k := &known{path: filepath.Join(cache, knownName), sums: map[identity]string{}}
	text, err := os.ReadFile(k.path)
	if err != nil {
		return k
	}
	for line := range bytes.Lines(text) {
		var id identity
		var sum string
		n, err := fmt.Sscanf(string(line), "%d %d %d %d %d %s\n", &id.dev, &id.ino, &id.size, &id.mtime, &id.ctime, &sum)
		if err == nil && n == 6 && isDigest(sum) {
			k.put(id, sum)
		}
	}
	k.more = false
	return k
}

func (k *known) put(id identity, sum string) {
	if _, ok := k.sums[id]; !ok {
		k.used = append(k.used, id)
	}
	k.sums[id], k.more = sum, true
}

// sum returns the digest of f, and its size.
func (k *known) sum(f *os.File) (digest string, size int64, err error) {
	before, local := identify(f)
	if sum, ok := k.sums[before]; ok && local {
		return sum, before.size, nil
	}
	began := time.Now()
	if local && before.size >= worthAWait && !before.settled(began) { // it has just been written, most likely by this cache
		time.Sleep(settles)
		began = time.Now()
	}
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", size, err
	}
	digest = hex.EncodeToString(h.Sum(nil))
	if after, _ := identify(f); local && after == before && before.settled(began) {
		k.put(before, digest)
	}
	return digest, size, nil
}

// save has the next readKnown know what this one does. It is only about time: its failure is none.
func (k *known) save() {
	if !k.more {
		return
	}
	var text bytes.Buffer
	for _, id := range k.used[max(0, len(k.used)-maxKnown):] {
		fmt.Fprintf(&text, "%d %d %d %d %d %s\n", id.dev, id.ino, id.size, id.mtime, id.ctime, k.sums[id])
	}
	f, err := os.CreateTemp(filepath.Dir(k.path), knownName+"-")
	if err != nil {
		return
	}
	k.more = false
	_, err = f.Write(text.Bytes())
	if closed := f.Close(); err != nil || closed != nil || os.Rename(f.Name(), k.path) != nil {
		os.Remove(f.Name())
	}
}

// settles is longer than the kernel's tick, of which times in files are multiples: 10 ms where it is longest
// (CONFIG_HZ=100). A file of worthAWait takes as long to read.
const (
	settles    = 20 * time.Millisecond
	worthAWait = 32 << 20
)

// settled tells whether a change after that instant gives the file other times: they are as coarse as
// settles, or as a second, where a file system has no smaller unit.
func (id *identity) settled(at time.Time) bool {
	coarse := settles
	if id.ctime%int64(time.Second) == 0 {
		coarse = 2 * time.Second
	}
	return at.UnixNano()-max(id.ctime, id.mtime) > int64(coarse)
}

// local are the file systems of which the kernel here knows every change (statfs(2)). Those of other machines
// may change without that.
var local = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
	unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, 0x2fc12fc1, // the last is ZFS
}

// identify returns what f is now; false: it may change without that.
func identify(f *os.File) (id identity, ok bool) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(int(f.Fd()), &fs) != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return id, false
	}
	id = identity{uint64(st.Dev), uint64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
	return id, slices.Contains(local, int64(fs.Type))
}
