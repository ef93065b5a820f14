package testkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// Root returns the directory of go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// FindRoot is Root where there is no test to fail.
func FindRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// Programs returns a directory with preforkd, preforkd-anchor, preforkd-worker, preforkd-bench, preforkd-broker and the engine's library.
// They are built with the race detector if the test is.
func Programs(t testing.TB) string {
	t.Helper()
	build := plain
	if RaceEnabled {
		build = race
	}
	return built(t, build)
}

// PlainPrograms is Programs never built with the race detector, for what is packed and for what
// has little memory.
func PlainPrograms(t testing.TB) string {
	t.Helper()
	return built(t, plain)
}

func built(t testing.TB, build func() (string, error)) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var (
	plain = sync.OnceValues(func() (string, error) { return programs("plain", "-trimpath", "-ldflags=-s -w") }) // as make build
	race  = sync.OnceValues(func() (string, error) { return programs("race", "-race") })
)

func programs(kind string, flags ...string) (string, error) {
	base, err := FindRoot()
	if err != nil {
		return "", err
	}
	args := slices.Concat([]string{"build"}, flags, []string{"-o"})
	dir := filepath.Join(base, ".cache", "test-programs", kind)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{"preforkd": "./cmd/supervisor", "preforkd-anchor": "./cmd/anchor", "preforkd-worker": "./cmd/worker", "preforkd-bench": "./cmd/bench", "preforkd-broker": "./cmd/broker"} {
		// Build beside and rename: another test binary may be running the old one.
		tmp := filepath.Join(dir, fmt.Sprintf(".%s.%d", name, os.Getpid()))
		cmd := exec.Command("go", append(args, tmp, pkg)...)
		cmd.Dir = base
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, link(base, dir)
}

// link puts the engine's library beside the programs.
func link(base, dir string) error {
	library := os.Getenv("ONNXRUNTIME")
	if library == "" {
		library = filepath.Join(base, ".cache", "onnxruntime", "1.24.3", "libonnxruntime.so.1")
	}
	if _, err := os.Stat(library); err != nil {
		return fmt.Errorf("the engine's library: %w (make engine fetches it)", err)
	}
	tmp := filepath.Join(dir, fmt.Sprintf(".library.%d", os.Getpid()))
	if err := os.Symlink(library, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "libonnxruntime.so.1"))
}
