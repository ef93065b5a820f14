package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLibraryIsFound(t *testing.T) {
	root := t.TempDir()
	bin := filepath.Join(root, "bin")
	lib := filepath.Join(root, "lib", "preforkd")
	for _, dir := range []string{bin, lib} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(setting, want string) {
		t.Helper()
		if got := findLibrary(setting, filepath.Join(t.TempDir(), "none"), bin); got != want {
			t.Errorf("findLibrary(%q) = %q, want %q", setting, got, want)
		}
	}
	expect("", libraryName)
	for _, dir := range []string{lib, bin} { // the one beside the executables wins
		if err := os.WriteFile(filepath.Join(dir, libraryName), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		expect("", filepath.Join(dir, libraryName))
	}
	expect("/opt/mine.so", "/opt/mine.so")
}

// TestOnlyBinariesAreHeld: a script would not find its own text behind a closed descriptor.
func TestOnlyBinariesAreHeld(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if f := openBinary(script); f != nil {
		t.Error("a script is held")
		f.Close()
	}
	f := openBinary("/proc/self/exe")
	if f == nil {
		t.Fatal("a binary is not held")
	}
	f.Close()
	if openBinary(filepath.Join(t.TempDir(), "none")) != nil {
		t.Error("nothing is held")
	}
}
