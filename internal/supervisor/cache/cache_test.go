package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/pbtxt"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

type dirs struct{ models, cache string }

func places(t *testing.T) dirs {
	dir := t.TempDir()
	p := dirs{filepath.Join(dir, "models"), filepath.Join(dir, "cache")}
	write(t, filepath.Join(p.models, "a/1/model.onnx"), "one")
	return p
}

func (p dirs) collect() (*Collection, error) {
	return Collect(Options{Models: p.models, Cache: p.cache, Decode: config.Decode, DecodeText: pbtxt.Decode})
}

func (p dirs) must(t *testing.T) *Collection {
	t.Helper()
	c, err := p.collect()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestHighestVersionIsServed(t *testing.T) {
	p := places(t)
	for _, v := range []string{"2", "10", "9", "007", "0", "-1", "latest", "18446744073709551616"} {
		write(t, filepath.Join(p.models, "a", v, "model.onnx"), "v"+v)
	}
	write(t, filepath.Join(p.models, ".git/1/model.onnx"), "hidden")
	write(t, filepath.Join(p.models, "README"), "no model")
	c := p.must(t)
	if len(c.Models) != 1 || c.Models[0].Version != "10" || content(t, c.Models[0].Path) != "v10" || c.Models[0].Bytes != 3 {
		t.Errorf("%+v", c.Models)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "README") {
		t.Errorf("%q", c.Warnings)
	}
}

func TestConfigNamesTheVersion(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "a/2/model.onnx"), "two")
	write(t, filepath.Join(p.models, "a/config.yaml"), "version: \"1\"\ndescription: x\n")
	if c := p.must(t); c.Models[0].Version != "1" || c.Models[0].Options.Description != "x" {
		t.Errorf("%+v", c.Models[0])
	}
	write(t, filepath.Join(p.models, "a/config.yaml"), "version: \"3\"\n")
	if _, err := p.collect(); ipc.ExitStatus(err) != ipc.ExitConfig || !strings.Contains(err.Error(), "1, 2") {
		t.Error(err)
	}
	write(t, filepath.Join(p.models, "a/config.yaml"), "versoin: \"1\"\n")
	if _, err := p.collect(); ipc.ExitStatus(err) != ipc.ExitConfig || !strings.Contains(err.Error(), "config.yaml:1:1") {
		t.Error(err)
	}
}

// TestSourceMayChange is what the cache is for.
func TestSourceMayChange(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "a/1/weights.bin"), "external data")
	m := p.must(t).Models[0]
	write(t, filepath.Join(p.models, "a/1/model.onnx"), "something else")
	if err := os.RemoveAll(filepath.Join(p.models, "a/1")); err != nil {
		t.Fatal(err)
	}
	if content(t, m.Path) != "one" || content(t, filepath.Join(filepath.Dir(m.Path), "weights.bin")) != "external data" {
		t.Error("the copy changed with its source")
	}
}

func TestSameContentIsOneEntry(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "b/7/model.onnx"), "one")
	first := p.must(t)
	if first.Models[0].Path != first.Models[1].Path || first.Models[0].Digest != first.Models[1].Digest {
		t.Errorf("%+v", first.Models)
	}
	st, err := os.Stat(first.Models[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	again := p.must(t)
	if st2, err := os.Stat(again.Models[0].Path); err != nil || !os.SameFile(st, st2) {
		t.Error("an entry was written again")
	}
	if names, _ := os.ReadDir(filepath.Join(p.cache, "models")); len(names) != 1 {
		t.Errorf("%v", names)
	}
}

func TestDamagedEntryIsRebuilt(t *testing.T) {
	p := places(t)
	m := p.must(t).Models[0]
	if err := os.Truncate(m.Path, 1); err != nil {
		t.Fatal(err)
	}
	if again := p.must(t).Models[0]; again.Path != m.Path || content(t, again.Path) != "one" {
		t.Errorf("%q", content(t, again.Path))
	}
	if names, _ := os.ReadDir(filepath.Join(p.cache, "models")); len(names) != 1 {
		t.Errorf("%v", names)
	}
}

func TestConcurrentSupervisorsShare(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "a/1/model.onnx"), strings.Repeat("x", 1<<20))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if c, err := p.collect(); err != nil || len(content(t, c.Models[0].Path)) != 1<<20 {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if names, _ := os.ReadDir(filepath.Join(p.cache, "models")); len(names) != 1 {
		t.Errorf("%v", names)
	}
}

func TestLinksAreFollowed(t *testing.T) { // Kubernetes mounts volumes so
	p := places(t)
	write(t, filepath.Join(p.models, "..data/model.onnx"), "linked")
	if err := os.MkdirAll(filepath.Join(p.models, "c/1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../..data/model.onnx", filepath.Join(p.models, "c/1/model.onnx")); err != nil {
		t.Fatal(err)
	}
	c := p.must(t)
	if len(c.Models) != 2 || content(t, c.Models[1].Path) != "linked" {
		t.Errorf("%+v", c.Models)
	}
}

func TestEveryBadModelIsNamed(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "b/1/other.onnx"), "x")
	write(t, filepath.Join(p.models, "c/notes.txt"), "x")
	_, err := p.collect()
	if ipc.ExitStatus(err) != ipc.ExitBoot {
		t.Fatal(err)
	}
	for _, want := range []string{"b/1/model.onnx", "model c"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	p := places(t)
	for _, c := range []struct {
		name string
		p    dirs
		exit int
		text string
	}{
		{"no model directory", dirs{p.models + "x", p.cache}, ipc.ExitConfig, p.models + "x"},
		{"empty model directory", dirs{t.TempDir(), p.cache}, ipc.ExitConfig, "holds no model"},
		{"cache below a file", dirs{p.models, filepath.Join(p.models, "a/1/model.onnx/cache")}, ipc.ExitUnavailable, "model.onnx"},
		{"cache in a place that nobody may write", dirs{p.models, "/proc/cache"}, ipc.ExitUnavailable, "/proc/cache"},
	} {
		_, err := c.p.collect()
		if ipc.ExitStatus(err) != c.exit || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "try:") {
			t.Errorf("%s: exit %d, %v", c.name, ipc.ExitStatus(err), err)
		}
	}
	if f := cacheFailure("/c", &os.PathError{Op: "mkdir", Path: "/c", Err: errReadOnly}); f.Exit != ipc.ExitPermission {
		t.Error(f)
	}
	if f := cacheFailure("/c", os.ErrPermission); f.Exit != ipc.ExitPermission || !errors.Is(f, os.ErrPermission) {
		t.Error(f)
	}
}

func TestSharedPlaceIsNotTrusted(t *testing.T) {
	p := places(t)
	collect := func() error {
		_, err := Collect(Options{Models: p.models, Cache: p.cache, Shared: true, Decode: config.Decode})
		return err
	}
	if err := collect(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(p.cache); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := collect(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p.cache, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := collect(); ipc.ExitStatus(err) != ipc.ExitPermission {
		t.Errorf("writable by all: %v", err)
	}
	if err := os.Rename(p.cache, p.cache+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.cache+"2", p.cache); err != nil {
		t.Fatal(err)
	}
	if err := collect(); ipc.ExitStatus(err) != ipc.ExitPermission {
		t.Errorf("a link: %v", err)
	}
}
