package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/testkit"
)

// small returns a directory in a file system of so many bytes.
func small(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a small file system needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestFullDiskHealsByItself(t *testing.T) {
	disk := small(t, 24<<20)
	dir := filepath.Join(disk, "store")
	b := testkit.StartBroker(t, dir, "--reserve", "4194304")
	_, js := client(t, b.Access)
	s := stream(t, js, "Q")
	put(t, js, "q.1", nil)
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 30<<20), 0o600); err == nil {
		t.Fatal("there was room for more than there is")
	}
	if said := b.Await("STATUS=full"); !strings.Contains(said, "MiB free") {
		t.Errorf("it said %s", said)
	}
	if _, err := js.Publish(t.Context(), "q.full", make([]byte, 512<<10)); err == nil {
		t.Error("with no room there was room")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	put(t, js, "q.2", make([]byte, 512<<10)) // again and again until it is taken
	if n := messages(t, s); n < 2 {
		t.Errorf("%d messages are left", n)
	}
	if status := b.Kill(syscall.SIGTERM); status != 0 {
		t.Errorf("TERM: status %d", status)
	}
}
