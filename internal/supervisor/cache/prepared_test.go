package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"preforkd/internal/ipc"
)

// preparer has models "prepared" by a copy, and counts how often.
func preparer(t *testing.T, cache string) (p *Preparer, runs *atomic.Int64) {
	t.Helper()
	runs = new(atomic.Int64)
	return &Preparer{
		Cache: cache, Graph: "model.onnx", Recipe: Recipe{library: "l", cpu: "c"},
		Run: func(_ context.Context, source, dir string) error {
			runs.Add(1)
			data, err := os.ReadFile(source)
			if err != nil {
				return err
			}
			return errors.Join(
				os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("graph"), 0o640),
				os.WriteFile(filepath.Join(dir, "weights.bin"), data, 0o640),
			)
		},
	}, runs
}

// modelOf is a model whose file holds text.
func modelOf(t *testing.T, text string) ipc.ModelFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return ipc.ModelFile{Name: "m", Version: "1", Path: path, Digest: "d" + text}
}

// prepared prepares m and returns the lease.
func prepared(t *testing.T, p *Preparer, m *ipc.ModelFile, want bool) *Lease {
	t.Helper()
	l := &Lease{}
	t.Cleanup(l.Close)
	made, err := p.Prepare(t.Context(), m, l)
	if err != nil || made != want {
		t.Fatalf("made: %v, %v", made, err)
	}
	return l
}

// left tells which names are in the directory of prepared models.
func left(t *testing.T, cache string) (entries, others []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(cache, preparedName))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if isDigest(e.Name()) {
			entries = append(entries, e.Name())
		} else if e.Name() != turnName {
			others = append(others, e.Name())
		}
	}
	return entries, others
}

func TestPrepare(t *testing.T) {
	cache := t.TempDir()
	p, runs := preparer(t, cache)
	m := modelOf(t, "weights")
	prepared(t, p, &m, true)
	if m.Shared != int64(len("weights")) || !strings.HasPrefix(m.Prepared, cache) {
		t.Errorf("%+v", m)
	}
	again := m
	again.Prepared, again.Shared = "", 0
	prepared(t, p, &again, false)
	if again.Prepared != m.Prepared || again.Shared != m.Shared || runs.Load() != 1 {
		t.Errorf("%+v, prepared %d times", again, runs.Load())
	}
	other := *p
	other.Recipe.cpu = "another"
	prepared(t, &other, &again, true)
	if again.Prepared == m.Prepared {
		t.Error("two CPUs have one entry")
	}
	if entries, others := left(t, cache); len(entries) != 2 || len(others) != 0 {
		t.Errorf("%q and %q are there", entries, others)
	}
}

// TestPreparedDamage: whatever is not as it was put there is never used, and made anew.
func TestPreparedDamage(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"bit":     func(dir string) error { return flip(filepath.Join(dir, "weights.bin")) },
		"graph":   func(dir string) error { return flip(filepath.Join(dir, "model.onnx")) },
		"sums":    func(dir string) error { return flip(filepath.Join(dir, sumsName)) },
		"short":   func(dir string) error { return os.Truncate(filepath.Join(dir, "weights.bin"), 3) },
		"no sums": func(dir string) error { return os.Remove(filepath.Join(dir, sumsName)) },
		"no sum":  func(dir string) error { return os.Truncate(filepath.Join(dir, sumsName), 0) },
		"gone":    func(dir string) error { return os.Remove(filepath.Join(dir, "model.onnx")) },
		"more":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "more"), nil, 0o644) },
		"link":    func(dir string) error { return os.Symlink("/dev/zero", filepath.Join(dir, "more")) },
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			p, runs := preparer(t, cache)
			m := modelOf(t, "weights")
			l := prepared(t, p, &m, true)
			if err := damage(m.Prepared); err != nil {
				t.Fatal(err)
			}
			if held := holdPrepared(m); held != nil {
				held.Close()
				t.Error("it is held as if it were whole")
			}
			if _, err := os.Stat(m.Prepared); err == nil {
				t.Error("it can be loaded still")
			}
			l.Close()
			prepared(t, p, &m, true)
			if runs.Load() != 2 || !whole(m.Prepared) {
				t.Errorf("prepared %d times", runs.Load())
			}
			if held := holdPrepared(m); held == nil {
				t.Error("it is not held")
			} else {
				held.Close()
			}
			if err := damage(m.Prepared); err != nil { // and in place, with nobody who looked first
				t.Fatal(err)
			}
			prepared(t, p, &m, true)
			if !whole(m.Prepared) {
				t.Error("it is damaged still")
			}
			if _, err := Evict(cache, 1<<20); err != nil {
				t.Fatal(err)
			}
			if entries, others := left(t, cache); len(entries) != 1 || len(others) != 0 {
				t.Errorf("%q and %q are there", entries, others)
			}
		})
	}
}

func flip(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(path, data, 0o644)
}

// TestPrepareFails: nothing is left, and the model stays as it was.
func TestPrepareFails(t *testing.T) {
	cache := t.TempDir()
	p, _ := preparer(t, cache)
	good := p.Run
	why := errors.New("it died")
	p.Run = func(ctx context.Context, source, dir string) error { return errors.Join(good(ctx, source, dir), why) }
	m := modelOf(t, "weights")
	before, l := m, &Lease{}
	if _, err := p.Prepare(t.Context(), &m, l); !errors.Is(err, why) {
		t.Error(err)
	}
	p.Run = func(context.Context, string, string) error { return nil }
	if _, err := p.Prepare(t.Context(), &m, l); err == nil {
		t.Error("nothing is as good as a model")
	}
	if m.Prepared != before.Prepared || m.Shared != 0 || len(l.dirs) != 0 {
		t.Errorf("%+v", m)
	}
	if entries, others := left(t, cache); len(entries)+len(others) != 0 {
		t.Errorf("%q and %q are left", entries, others)
	}
}

// TestPrepareAtOnce: many at once prepare once.
func TestPrepareAtOnce(t *testing.T) {
	p, runs := preparer(t, t.TempDir())
	m := modelOf(t, "weights")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			own, l := m, &Lease{}
			defer l.Close()
			if _, err := p.Prepare(t.Context(), &own, l); err != nil || !whole(own.Prepared) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if runs.Load() != 1 {
		t.Errorf("prepared %d times", runs.Load())
	}
	turn, err := takeTurn(t.Context(), filepath.Join(p.Cache, preparedName))
	if err != nil {
		t.Fatal(err)
	}
	defer turn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := takeTurn(ctx, filepath.Join(p.Cache, preparedName)); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever waits cannot be told to stop: %v", err)
	}
}

// TestEvict: the least recently used go first, and never what somebody has a lease on.
func TestEvict(t *testing.T) {
	cache := t.TempDir()
	p, _ := preparer(t, cache)
	if n, err := Evict(cache, 0); n != 0 || err != nil {
		t.Error(n, err)
	}
	models := map[string]*ipc.ModelFile{}
	for i, text := range []string{"held", "old", "new"} {
		m := modelOf(t, strings.Repeat(text, 100))
		l := prepared(t, p, &m, true)
		if text != "held" {
			l.Close()
		}
		used := time.Now().Add(time.Duration(i-5) * time.Minute)
		if err := os.Chtimes(m.Prepared, used, used); err != nil {
			t.Fatal(err)
		}
		models[text] = &m
	}
	left := func(want ...string) {
		t.Helper()
		for text, m := range models {
			_, err := os.Stat(m.Prepared)
			if there := err == nil; there != strings.Contains(strings.Join(want, " "), text) {
				t.Errorf("%s is there: %v", text, there)
			}
		}
	}
	if n, err := Evict(cache, 1<<20); n != 0 || err != nil {
		t.Error(n, err)
	}
	left("held", "old", "new")
	if n, err := Evict(cache, 1200); n != 1 || err != nil { // of about 1,500 and three lists
		t.Error(n, err)
	}
	left("held", "new")
	if n, err := Evict(cache, 0); n != 1 || err != nil {
		t.Error(n, err)
	}
	left("held")
}

// TestTheirs: what another user has written is copied, and only if it is what it seems.
func TestTheirs(t *testing.T) {
	cache := t.TempDir()
	p, _ := preparer(t, cache)
	good := p.Run
	given := ""
	p.Take = func(dir string) error { given = dir; return nil }
	m := modelOf(t, "weights")
	prepared(t, p, &m, true)
	if given == "" {
		t.Error("the directory was not given away")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, add := range map[string]func(dir string) error{
		"link":      func(dir string) error { return os.Symlink(secret, filepath.Join(dir, "x")) },
		"hard link": func(dir string) error { return os.Link(filepath.Join(dir, "weights.bin"), filepath.Join(dir, "x")) },
		"directory": func(dir string) error { return os.Mkdir(filepath.Join(dir, "x"), 0o755) },
	} {
		p.Run = func(ctx context.Context, source, dir string) error {
			return errors.Join(good(ctx, source, dir), add(dir))
		}
		m := modelOf(t, name)
		if _, err := p.Prepare(t.Context(), &m, &Lease{}); err == nil {
			t.Errorf("a %s is taken", name)
		}
	}
}

func TestCPUFeatures(t *testing.T) {
	const x86 = "processor\t: 0\nmodel\t\t: 85\ncpu MHz\t\t: 2100.0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nmodel\t\t: 85\ncpu MHz\t\t: 900.0\nflags\t\t: avx2 fpu\n"
	got, err := cpuFeatures([]byte(x86))
	if err != nil || got != "flags: avx2 fpu\nmodel: 85" {
		t.Errorf("%q, %v", got, err)
	}
	if more, err := cpuFeatures([]byte(strings.ReplaceAll(x86, "avx2", "avx2 avx512f"))); err != nil || more == got {
		t.Errorf("%q, %v", more, err)
	}
	for _, text := range []string{"", "no colon", "processor : 1\n"} {
		if got, err := cpuFeatures([]byte(text)); err == nil {
			t.Errorf("%q tells %q", text, got)
		}
	}
}

// TestKey: all that matters makes another entry.
func TestKey(t *testing.T) {
	m := ipc.ModelFile{Digest: "d", Path: "/c/models/d/model.onnx"}
	all := map[string]bool{}
	for _, r := range []Recipe{{}, {library: "a"}, {cpu: "a"}, {custom: []string{"a"}}, {custom: []string{"a", "b"}}, {custom: []string{"b", "a"}}} {
		for _, change := range []func(m *ipc.ModelFile){func(*ipc.ModelFile) {}, func(m *ipc.ModelFile) { m.Digest = "e" }, func(m *ipc.ModelFile) { m.Path = "/c/models/d/other.onnx" }} {
			one := m
			change(&one)
			all[r.key(&one)] = true
		}
	}
	if len(all) != 18 {
		t.Errorf("18 recipes have %d keys", len(all))
	}
}
