package cache

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/ipc"
)

// entries returns the names in the cache.
func (p dirs) entries(t *testing.T) (names []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(p.cache, "models"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func (p dirs) sweep(t *testing.T, want int) {
	t.Helper()
	if n, err := Sweep(p.cache); n != want || err != nil {
		t.Errorf("removed %d, want %d: %v", n, want, err)
	}
}

// TestSweepLeavesWhatIsLeased: each holder counts, and only copies are removed.
func TestSweepLeavesWhatIsLeased(t *testing.T) {
	p := places(t)
	first := p.must(t)
	write(t, filepath.Join(p.models, "a/1/model.onnx"), "two")
	second := p.must(t)
	again, err := Hold(first.Models)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.cache, "models/README"), "not ours")
	write(t, filepath.Join(p.cache, "models/.new-1/model.onnx"), "somebody is at it")
	p.sweep(t, 0)
	first.Lease.Close()
	p.sweep(t, 0)
	again.Close()
	p.sweep(t, 1)
	if content(t, second.Models[0].Path) != "two" {
		t.Error("a copy that is leased is gone")
	}
	if _, err := Hold(first.Models); err == nil {
		t.Error("a copy that was removed can be held")
	}
	old := time.Now().Add(-2 * newFor)
	if err := os.Chtimes(filepath.Join(p.cache, "models/.new-1"), old, old); err != nil {
		t.Fatal(err)
	}
	second.Lease.Close()
	p.sweep(t, 1)
	if got := p.entries(t); len(got) != 1 || got[0] != "README" {
		t.Errorf("%q", got)
	}
	if c := p.must(t); content(t, c.Models[0].Path) != "two" {
		t.Error("it does not come back")
	}
}

func TestSweepOfNothing(t *testing.T) {
	if n, err := Sweep(filepath.Join(t.TempDir(), "none")); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestHoldSaysWhatIsMissing: every file, and content that is another.
func TestHoldSaysWhatIsMissing(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "a/1/model.data"), "weights")
	write(t, filepath.Join(p.models, "b/3/model.onnx"), "b")
	c := p.must(t)
	defer c.Lease.Close()
	hold := func(words ...string) {
		t.Helper()
		l, err := Hold(c.Models)
		if err == nil {
			l.Close()
			t.Fatalf("held, want an error with %q", words)
		}
		if ipc.ExitStatus(err) != ipc.ExitUnavailable {
			t.Errorf("exit status %d", ipc.ExitStatus(err))
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in %v", w, err)
			}
		}
	}
	a, b := filepath.Dir(c.Models[0].Path), c.Models[1].Path
	write(t, b, "c")
	hold("model b, version 3", filepath.Dir(b)+" has other content")
	if err := os.Remove(filepath.Join(a, "model.data")); err != nil {
		t.Fatal(err)
	}
	hold("model a, version 1", filepath.Join(a, "model.data")+": no such file", "model b, version 3")
	if err := os.RemoveAll(a); err != nil {
		t.Fatal(err)
	}
	hold("model a, version 1", a+": no such file")
}

// TestSweepsBesideCollects: whoever collects holds whole copies, whatever is swept.
func TestSweepsBesideCollects(t *testing.T) {
	p := places(t)
	if err := os.MkdirAll(p.cache, 0o755); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				c, err := p.collect()
				if err != nil {
					t.Error(err)
					return
				}
				if data, err := os.ReadFile(c.Models[0].Path); err != nil || string(data) != "one" {
					t.Errorf("%q, %v", data, err)
				}
				c.Lease.Close()
				if _, err := Sweep(p.cache); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	p.sweep(t, len(p.entries(t)))
	if got := p.entries(t); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
