package onnx

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
	"preforkd/internal/testkit/digits"
)

// libraryName is the file's name in every distribution of ONNX Runtime 1.x.
const libraryName = "libonnxruntime.so.1"

// compile makes a shared library of C source, as a stand-in for ONNX Runtime.
func compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), libraryName)
	cc := exec.Command("gcc", append(flags, "-shared", "-fPIC", "-x", "c", "-o", path, "-")...)
	cc.Stdin = strings.NewReader(source)
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestOpenSaysWhatIsWrongWithALibrary(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("no library at all, only a text that is long enough for a header\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.so")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// onnxruntime_c_api.h, OrtApiBase: GetApi returns NULL for a version it lacks.
	old := compile(t, `
		static const void *api(unsigned version) { return 0; }
		static const char *version(void) { return "1.10.0"; }
		static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = { api, version };
		const void *OrtGetApiBase(void) { return &base; }`)
	for library, why := range map[string]string{
		filepath.Join(dir, "none.so"): "no such file or directory",
		"libno-such-library.so.1":     "cannot open shared object file: No such file or directory",
		dir:                           "it is a directory",
		text:                          "invalid ELF header",
		empty:                         "the file is empty",
		old:                           "it is older than version 1.24",
		compile(t, "int other;"):      "it is another library: it has no OrtGetApiBase",
	} {
		_, err := Open(library)
		var f *ipc.Failure
		if !errors.As(err, &f) || f.Exit != ipc.ExitUnavailable || f.Try == "" {
			t.Errorf("%s: %v", library, err)
			continue
		}
		if want := "load ONNX Runtime from " + library + ": " + why; f.What != want {
			t.Errorf("%q\nwant %q", f.What, want)
		}
	}
	open(t) // none of that is in the way of a good one
}

func TestOneEngineAtATime(t *testing.T) {
	set := digits.Load(t)
	var old inference.Engine
	for range 3 {
		e, err := Open(library(t))
		if err != nil {
			t.Fatal(err)
		}
		if e.Platform() != "onnxruntime_onnx" || !strings.HasPrefix(e.Version(), "1.") {
			t.Errorf("%s %s", e.Platform(), e.Version())
		}
		if _, err := Open(library(t)); err == nil {
			t.Fatal("a second engine opens")
		}
		m, err := e.Load(modelFile(set, "digits"))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err == nil {
			t.Fatal("an engine closes under its model")
		}
		if err := errors.Join(m.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
		old = e
	}
	if err := old.Close(); err == nil {
		t.Error("closes twice")
	}
	if _, err := old.Load(modelFile(set, "digits")); err == nil {
		t.Error("a closed engine loads")
	}
}

// Opening, loading, running and closing leave no descriptor and no goroutine behind.
func TestNothingIsLeft(t *testing.T) {
	set := digits.Load(t)
	in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 2)
	pixels(t, &in[0], set, 0, 3)
	cycle := func() {
		e, err := Open(library(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range digits.Names {
			m, err := e.Load(modelFile(set, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(m.Run(in, out), m.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Load(os.DevNull); err == nil {
			t.Fatal("an empty model loads")
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle() // what the runtime opens once, such as its poller
	descriptors, goroutines := countDescriptors(t), runtime.NumGoroutine()
	for range 5 {
		cycle()
	}
	if n := countDescriptors(t); n != descriptors {
		t.Errorf("%d descriptors, were %d", n, descriptors)
	}
	if n := runtime.NumGoroutine(); n != goroutines {
		t.Errorf("%d goroutines, were %d", n, goroutines)
	}
}

func countDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
