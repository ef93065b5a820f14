package testkit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"preforkd/internal/ipc/notify"
	"preforkd/internal/ipc/store"
)

// Broker is a running preforkd-broker.
type Broker struct {
	t      testing.TB
	Access store.Access
	PID    int
	cmd    *exec.Cmd
	server *notify.Server
	ended  chan struct{}
	out    lockedBuffer

	mu   sync.Mutex // guards said
	cond *sync.Cond
	said []string
}

// lockedBuffer is a buffer that may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// LaunchBroker starts a broker of the store in dir and does not wait.
func LaunchBroker(t testing.TB, dir string, args ...string) *Broker {
	t.Helper()
	access, err := store.Prepare(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{t: t, Access: access, ended: make(chan struct{})}
	b.cond = sync.NewCond(&b.mu)
	if b.server, err = notify.Listen(func(m notify.Message) { b.hear(strings.Split(m.Text, "\n")...) }); err != nil {
		t.Fatal(err)
	}
	b.cmd = exec.Command(filepath.Join(Programs(t), "preforkd-broker"), append([]string{"--store", dir}, args...)...)
	b.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+b.server.Name(), "GORACE=atexit_sleep_ms=0")
	b.cmd.Stderr = &b.out
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.PID = b.cmd.Process.Pid
	go func() { // ends with the process
		_ = b.cmd.Wait()
		close(b.ended)
		_ = b.server.Flush() // what it said last
		b.hear("ENDED")
	}()
	t.Cleanup(func() {
		b.Kill(syscall.SIGKILL)
		b.server.Close()
		if t.Failed() {
			t.Logf("broker %d said:\n%s", b.PID, b.out.String())
		}
	})
	return b
}

// StartBroker is LaunchBroker that waits until clients may connect.
func StartBroker(t testing.TB, dir string, args ...string) *Broker {
	t.Helper()
	b := LaunchBroker(t, dir, args...)
	b.Await("READY=1")
	return b
}

func (b *Broker) hear(lines ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, lines...)
	b.cond.Broadcast()
}

// Await waits until the broker has said a line that begins so, and returns it.
func (b *Broker) Await(begins string) string {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := 0; ; i++ {
		for i >= len(b.said) {
			if i > 0 && b.said[i-1] == "ENDED" {
				b.t.Fatalf("the broker ended and never said %q: %q\n%s", begins, b.said, b.out.String())
			}
			b.cond.Wait()
		}
		if strings.HasPrefix(b.said[i], begins) {
			return b.said[i]
		}
	}
}

// Kill sends sig and waits for the end; it returns the exit status, -1 after a signal.
func (b *Broker) Kill(sig syscall.Signal) int {
	b.t.Helper()
	_ = b.cmd.Process.Signal(sig) // it may have ended
	<-b.ended
	return b.cmd.ProcessState.ExitCode()
}

// Log is what the broker has written.
func (b *Broker) Log() string { return b.out.String() }

// String names it.
func (b *Broker) String() string { return fmt.Sprintf("broker %d at %s", b.PID, b.Access.Address()) }
