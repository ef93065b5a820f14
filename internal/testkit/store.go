package testkit

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
)

// Store is a service manager's store of descriptors, as systemd's (FileDescriptorStoreMax= in
// systemd.service(5)): what a service puts there its next start gets. It is for one service at
// a time.
type Store struct {
	server *notify.Server

	mu     sync.Mutex           // guards the fields below
	handle func(notify.Message) // of the service that runs
	files  []*os.File
}

// NewStore returns an empty store, which is closed when the test ends.
func NewStore(t testing.TB) *Store {
	t.Helper()
	s := &Store{handle: func(notify.Message) {}}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@preforkd-test/%d/%s", os.Getpid(), rand.Text())}); err != nil {
		syscall.Close(fd)
		t.Fatal(err)
	}
	if s.server, err = notify.Serve(fd, s.receive); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.server.Close()
		s.Clear()
	})
	return s
}

// receive does what systemd does with m: a file that is there already is not kept twice,
// whatever its name, and nothing is replaced.
func (s *Store) receive(m notify.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.handle(m)
	name, _ := m.Get("FDNAME")
	if _, ok := m.Get("FDSTOREREMOVE"); ok {
		s.files = slices.DeleteFunc(s.files, func(f *os.File) bool {
			if f.Name() != name {
				return false
			}
			f.Close()
			return true
		})
	}
	_, store := m.Get("FDSTORE")
	for _, fd := range m.Descriptors {
		f := os.NewFile(uintptr(fd), name)
		if !store || s.has(f) {
			f.Close()
			continue
		}
		s.files = append(s.files, f)
	}
}

func (s *Store) has(f *os.File) bool {
	st, err := f.Stat()
	return err != nil || slices.ContainsFunc(s.files, func(g *os.File) bool {
		other, err := g.Stat()
		return err == nil && os.SameFile(st, other)
	})
}

// Names returns the names of what is there.
func (s *Store) Names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		names = append(names, f.Name())
	}
	return names
}

// Clear closes all that is there, as systemd does when a service has been stopped.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.Close()
	}
	s.files = nil
}

// command returns cmd with what is there handed over, and a function to call when it has been
// started.
func (s *Store) command(t testing.TB, cmd *exec.Cmd) (given *exec.Cmd, started func()) {
	t.Helper()
	client, err := notify.Dial(s.server.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Barrier(); err != nil { // the service before may have said something last
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// LISTEN_PID must be the service's own: a shell executes it with its own.
	given = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, cmd.Args...)...)
	var names []string
	for _, f := range s.files {
		fd, err := activation.Duplicate(int(f.Fd())) // nothing here reads from them
		if err != nil {
			t.Fatal(err)
		}
		given.ExtraFiles, names = append(given.ExtraFiles, os.NewFile(uintptr(fd), f.Name())), append(names, f.Name())
	}
	given.Env = append(cmd.Env, "FDSTORE=1024", fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	return given, func() {
		for _, f := range given.ExtraFiles {
			f.Close()
		}
	}
}

// listen has handle called for what the service says.
func (s *Store) listen(handle func(notify.Message)) (*notify.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = handle
	return s.server, nil
}
