package cache

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"preforkd/internal/config"
)

// TestReadable: copies for another user can be read by all, also those that were made when they
// were not; a cache directory that somebody has closed stays closed.
func TestReadable(t *testing.T) {
	models := t.TempDir()
	write(t, filepath.Join(models, "m/1/model.onnx"), "graph")
	write(t, filepath.Join(models, "m/1/weights/a.data"), "weights")
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(t.TempDir(), "cache")
	mode := func(path string) fs.FileMode {
		t.Helper()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm()
	}
	collected := func(o Options) string {
		t.Helper()
		o.Models, o.Cache, o.Decode = models, dir, config.Decode
		c, err := Collect(o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Lease.Close()
		return filepath.Dir(c.Models[0].Path)
	}
	closed := collected(Options{})
	if got := mode(filepath.Join(closed, "model.onnx")); got != 0o600 {
		t.Errorf("a copy for ourselves has mode %v under umask 077", got)
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	open := collected(Options{Readable: true})
	for path, want := range map[string]fs.FileMode{
		dir: 0o750, filepath.Dir(open): 0o755, open: 0o755, filepath.Join(open, "weights"): 0o755,
		filepath.Join(open, "model.onnx"): 0o644, filepath.Join(open, "weights/a.data"): 0o644,
	} {
		if got := mode(path); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
	dir = filepath.Join(t.TempDir(), "new")
	collected(Options{Readable: true})
	if got := mode(dir); got != 0o755 {
		t.Errorf("a new cache has mode %v", got)
	}
}
