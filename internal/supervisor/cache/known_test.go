package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKnownFiles: a file is read once, and again after each change, whatever times it is given.
func TestKnownFiles(t *testing.T) {
	cache := t.TempDir()
	path := filepath.Join(cache, "weights")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sum := func() (digest string, read bool) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		k := readKnown(cache)
		digest, n, err := k.sum(f)
		if st, _ := f.Stat(); err != nil || n != st.Size() {
			t.Fatal(n, err)
		}
		at, err := f.Seek(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		k.save()
		return digest, at > 0
	}
	settle := func() { // until a change would be seen
		for {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			id, ok := identify(f)
			f.Close()
			if !ok {
				t.Skip("the temporary directory is on no local file system")
			}
			if id.settled(time.Now()) {
				return
			}
			time.Sleep(time.Millisecond) // only the clock can tell
		}
	}
	write("a")
	first, _ := sum()
	settle()
	if again, read := sum(); again != first || !read {
		t.Errorf("read as it was written, then %s %v", again, read)
	}
	if again, read := sum(); again != first || read {
		t.Errorf("known: %s %v", again, read)
	}
	old, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write("b")
	if err := os.Chtimes(path, old.ModTime(), old.ModTime()); err != nil { // as cp -p and tar do
		t.Fatal(err)
	}
	if other, read := sum(); other == first || !read {
		t.Errorf("changed: %s %v", other, read)
	}
	settle()
	sum()
	for _, text := range []string{"", "1 2 3\n", "1 2 3 4 5 zz\n", strings.Repeat("x", 1<<16)} {
		if err := os.WriteFile(filepath.Join(cache, knownName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if other, read := sum(); other == first || !read {
			t.Errorf("%.10q: %s %v", text, other, read)
		}
	}
}

// TestKnownIsBounded: the file does not grow with each model that there ever was, and the last are kept.
func TestKnownIsBounded(t *testing.T) {
	cache := t.TempDir()
	k := readKnown(cache)
	digest := strings.Repeat("0", 64)
	for i := range maxKnown + 100 {
		k.put(identity{ino: uint64(i)}, digest)
	}
	k.save()
	k = readKnown(cache)
	if _, last := k.sums[identity{ino: maxKnown + 99}]; len(k.sums) != maxKnown || !last {
		t.Errorf("%d", len(k.sums))
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "known-*")); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// TestKnownOfOtherMachines: a file system that others may change is not trusted.
func TestKnownOfOtherMachines(t *testing.T) {
	f, err := os.Open("/proc/self/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if id, ok := identify(f); ok {
		t.Errorf("%+v", id)
	}
}
