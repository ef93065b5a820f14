package store

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestPrepareIsOneForAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tasks")
	var wg sync.WaitGroup
	got := make([]Access, 8)
	for i := range got {
		wg.Go(func() {
			a, err := Prepare(dir)
			if err != nil {
				t.Error(err)
			}
			got[i] = a
		})
	}
	wg.Wait()
	for _, a := range got {
		if a != got[0] || a.Port == 0 || len(a.Token) != 2*tokenBytes {
			t.Fatalf("they differ, or are nothing: %+v", got)
		}
	}
	st, err := os.Stat(filepath.Join(dir, accessName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: mode %v, %v", st.Mode(), err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*.*.*")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestPortThatSomebodyElseHas(t *testing.T) {
	dir := t.TempDir()
	first, err := Prepare(dir)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", first.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	lock, _, err := tryLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Prepare(dir); err != nil || a != first {
		t.Errorf("a broker runs: got %+v, %v, want %+v", a, err, first)
	}
	lock.Close()
	if a, err := Prepare(dir); err != nil || a.Port == first.Port || a.Token != first.Token {
		t.Errorf("somebody else has the port %d: got %+v, %v", first.Port, a, err)
	}
}

func TestAccessFileThatIsNone(t *testing.T) {
	for _, text := range []string{"", "{}", `{"port":4222}`, `{"port":99999,"token":"` + strconv.Itoa(1e9) + `0123456789012345678901234567890"}`, "\x00"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, accessName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := Prepare(dir); err == nil {
			t.Errorf("%q: taken as %+v", text, a)
		}
	}
}

func TestLockWaitsForItsHolder(t *testing.T) {
	dir := t.TempDir()
	first, _, err := tryLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	waiting, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Lock(dir, func() { close(waiting) }) }()
	<-waiting
	select {
	case err := <-done:
		t.Fatalf("two have it: %v", err)
	case <-time.After(20 * time.Millisecond): // no event says that somebody goes on waiting
	}
	first.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, taken, err := tryLock(dir); err != nil || !taken {
		t.Errorf("free again: %v, %v", taken, err)
	}
}

func TestSpace(t *testing.T) {
	s, err := SpaceOf(t.TempDir())
	if err != nil || s.Total == 0 || s.Free > s.Total {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := SpaceOf("/dev/shm"); err == nil && !s.Memory {
		t.Errorf("/dev/shm is a disk: %+v", s)
	}
	if _, err := SpaceOf("/none/at/all"); err == nil {
		t.Error("a directory that there is not has room")
	}
}
