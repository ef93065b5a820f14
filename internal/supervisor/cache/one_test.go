package cache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"preforkd/internal/ipc"
)

// placeModel writes a model's version with this content.
func placeModel(t *testing.T, models, name, version, content string) {
	t.Helper()
	dir := filepath.Join(models, name, version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ipc.DefaultModelFile), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func oneOf(t *testing.T) (o Options, models string) {
	t.Helper()
	models = filepath.Join(t.TempDir(), "models")
	placeModel(t, models, "a", "1", "one")
	placeModel(t, models, "a", "2", "three")
	return Options{
		Models: models, Cache: filepath.Join(t.TempDir(), "cache"),
		Decode: func(string, []byte, any) error { return nil },
	}, models
}

func TestCollectOne(t *testing.T) {
	o, models := oneOf(t)
	asked := uint64(0)
	fits := func(n uint64) error { asked = n; return nil }
	c, err := CollectOne(o, "a", filepath.Join(models, "a"), fits)
	if err != nil || len(c.Models) != 1 || c.Models[0].Version != "2" || asked != 5 {
		t.Fatalf("%+v, %v, asked about %d bytes", c, err, asked)
	}
	defer c.Lease.Close()
	o.Version = "1"
	first, err := CollectOne(o, "a", filepath.Join(models, "a"), fits)
	if err != nil || len(first.Models) != 1 || first.Models[0].Version != "1" || first.Models[0].Options.Version != "1" || asked != 3 {
		t.Fatalf("%+v, %v, asked about %d bytes", first, err, asked)
	}
	both := append(append([]ipc.ModelFile{}, c.Models...), first.Models...)
	c.Lease.dirs = append(c.Lease.dirs, first.Lease.dirs...)
	if !c.Lease.Keep(both) || len(c.Lease.Descriptors()) != 2 {
		t.Error("a copy that is wanted was given back")
	}
	if !c.Lease.Keep(first.Models) || len(c.Lease.Descriptors()) != 1 {
		t.Error("a copy that nobody wants is held")
	}
	if n, err := Sweep(o.Cache); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := os.Stat(first.Models[0].Path); err != nil {
		t.Error(err)
	}
	if c.Lease.Keep(nil) {
		t.Error("something is left")
	}

	if _, err := CollectOne(o, "b", filepath.Join(models, "b"), fits); !errors.Is(err, ErrNoModel) {
		t.Error(err)
	}
	refusal := errors.New("too much")
	if _, err := CollectOne(o, "a", filepath.Join(models, "a"), func(uint64) error { return refusal }); !errors.Is(err, refusal) {
		t.Error(err)
	}
	o.Version = "7"
	if _, err := CollectOne(o, "a", filepath.Join(models, "a"), fits); ipc.ExitStatus(err) != ipc.ExitConfig {
		t.Error(err)
	}
}

// TestStage: what is on its way is swept once its maker must have gone.
func TestStage(t *testing.T) {
	o, _ := oneOf(t)
	dir, file, err := StageJSON(o, map[string]int{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != `{"a":1}` || filepath.Dir(file) != dir {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := Sweep(o.Cache); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("swept at once: %v", err)
	}
}

// TestLook: whatever changes in a model's files changes how it looks, and nothing else does.
func TestLook(t *testing.T) {
	_, models := oneOf(t)
	placeModel(t, models, ".hidden", "1", "x")
	if err := os.MkdirAll(filepath.Join(models, "empty", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	look := func() string {
		t.Helper()
		all, err := Look(models)
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return all["a"]
	}
	last := look()
	if look() != last {
		t.Error("it changes by itself")
	}
	file := filepath.Join(models, "a", "1", ipc.DefaultModelFile)
	for name, change := range map[string]func() error{
		"another version": func() error { placeModel(t, models, "a", "3", "x"); return nil },
		"more":            func() error { return os.WriteFile(file, []byte("longer"), 0o644) },
		"renamed": func() error {
			aside := filepath.Join(t.TempDir(), "m")
			if err := os.WriteFile(aside, []byte("longer"), 0o644); err != nil {
				return err
			}
			return os.Rename(aside, file)
		},
		"settings": func() error {
			return os.WriteFile(filepath.Join(models, "a", "config.yaml"), []byte("version: 1\n"), 0o644)
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		now := look()
		if now == last {
			t.Errorf("%s: it looks the same", name)
		}
		last = now
	}
	if _, err := Look(filepath.Join(models, "none")); ipc.ExitStatus(err) != ipc.ExitConfig {
		t.Error(err)
	}
}
