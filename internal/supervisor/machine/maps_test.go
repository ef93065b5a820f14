package machine

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMemoryOf has this process map a file, once read and once written to, and use memory of its own.
func TestMemoryOf(t *testing.T) {
	const size = 8 << 20
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "weights")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, err := MemoryOf(os.Getpid(), dir)
	if err != nil {
		t.Skipf("skipped: no smaps: %v", err)
	}
	read, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(read) }()
	written, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(written) }()
	sum := byte(0)
	for i := 0; i < size; i += 4096 {
		sum += read[i]
		written[i] = 1
	}
	after, err := MemoryOf(os.Getpid(), dir)
	if err != nil || sum != 0 {
		t.Fatal(err)
	}
	if before.Within != 0 || after.Within != size || after.Own < before.Own+size/2 || after.Common == 0 {
		t.Errorf("%+v, then %+v", before, after)
	}
	if elsewhere, err := MemoryOf(os.Getpid(), dir[:len(dir)-1]); err != nil || elsewhere.Within != 0 {
		t.Errorf("a directory of a longer name: %+v, %v", elsewhere, err)
	}
	if n, err := CPUSeconds(os.Getpid()); err != nil || n < 0 {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := CPUSeconds(1 << 30); err == nil {
		t.Error("a process that is not there")
	}
}
