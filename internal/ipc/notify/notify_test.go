package notify

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func serve(t *testing.T) (*Server, <-chan Message) {
	t.Helper()
	got := make(chan Message, 16)
	s, err := Listen(func(m Message) { got <- m })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, got
}

func await(t *testing.T, got <-chan Message) Message {
	t.Helper()
	select {
	case m := <-got:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no message")
		return Message{}
	}
}

func TestMessageArrivesWithItsSender(t *testing.T) {
	s, got := serve(t)
	t.Setenv("NOTIFY_SOCKET", s.Name())
	c, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("a child would speak in our name")
	}
	if err := c.SendWait("READY=1", "STATUS=a = b", "STATUS=last"); err != nil {
		t.Fatal(err)
	}
	m := await(t, got)
	if m.PID != os.Getpid() {
		t.Errorf("sender %d, we are %d", m.PID, os.Getpid())
	}
	if v, ok := m.Get("READY"); v != "1" || !ok {
		t.Errorf("READY is %q", v)
	}
	if v, _ := m.Get("STATUS"); v != "last" {
		t.Errorf("STATUS is %q", v)
	}
	if _, ok := m.Get("READ"); ok {
		t.Error("a key was found by its beginning")
	}
}

// TestRealClients lets programs that are not ours speak: systemd's own client, and a
// process that knows nothing but the protocol.
func TestRealClients(t *testing.T) {
	raw := `import os,socket
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)
s.sendto(b"READY=1\nSTATUS=from outside","\0"+os.environ["NOTIFY_SOCKET"][1:])`
	for _, command := range [][]string{
		{"systemd-notify", "--ready", "--status=from outside"},
		{"python3", "-c", raw},
	} {
		t.Run(command[0], func(t *testing.T) {
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skipf("skipped: %s is not installed", command[0])
			}
			s, got := serve(t)
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.Name())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			m := await(t, got)
			if v, _ := m.Get("STATUS"); v != "from outside" {
				t.Errorf("got %q", m.Text)
			}
			// systemd-notify speaks for its parent where it may (systemd-notify(1), --pid).
			if m.PID != cmd.Process.Pid && (command[0] != "systemd-notify" || m.PID != os.Getpid()) {
				t.Errorf("sender %d is neither the client %d nor its parent", m.PID, cmd.Process.Pid)
			}
		})
	}
}

// TestDescriptorsAreClosed sends a descriptor along, as BARRIER=1 does: the sender
// learns from its pipe that everything before has been handled.
func TestDescriptorsAreClosed(t *testing.T) {
	s, got := serve(t)
	c, err := Dial(s.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	if err := unix.Sendmsg(c.fd, []byte("BARRIER=1"), unix.UnixRights(pipe[1], pipe[1], pipe[1]), c.to, 0); err != nil {
		t.Fatal(err)
	}
	unix.Close(pipe[1])
	await(t, got)
	if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil { // blocks until the last copy is closed
		t.Errorf("read %d, %v; want end-of-file", n, err)
	}
}

func TestNilClientDropsEverything(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	c, err := FromEnvironment()
	if c != nil || err != nil {
		t.Fatalf("%v, %v", c, err)
	}
	if err := c.Send("READY=1"); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestBadNameIsRefused(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "relative")
	if _, err := FromEnvironment(); err == nil {
		t.Error("a relative name was taken")
	}
}

func FuzzGet(f *testing.F) {
	f.Add("READY=1\nSTATUS=x", "STATUS")
	f.Add("\n=\n==", "")
	f.Fuzz(func(t *testing.T, text, key string) {
		v, ok := Message{Text: text}.Get(key)
		if ok && !strings.Contains(text, key+"="+v) {
			t.Errorf("%q is not in %q", key+"="+v, text)
		}
	})
}

// FuzzControl reads what came with a message: at most one sender, and descriptors, however
// the bytes lie.
func FuzzControl(f *testing.F) {
	f.Add(unix.UnixCredentials(&unix.Ucred{Pid: 7}))
	f.Add(append(unix.UnixRights(3, 4), unix.UnixCredentials(&unix.Ucred{Pid: 7})...))
	f.Add([]byte("\x11\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x000"))
	f.Fuzz(func(t *testing.T, oob []byte) {
		if _, fds := control(oob); 4*len(fds) > len(oob) {
			t.Errorf("%d descriptors in %d bytes", len(fds), len(oob))
		}
	})
}

// TestSignalsDoNotEndAWait: Go's scheduler sends signals to threads that wait for long.
func TestSignalsDoNotEndAWait(t *testing.T) {
	name := "@" + t.Name() + strconv.Itoa(os.Getpid())
	full, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	if err := unix.Bind(full, &unix.SockaddrUnix{Name: name}); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	queued := 0
	for ; c.Send("X=1") == nil; queued++ {
	}
	thread, sent := make(chan int), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		thread <- unix.Gettid()
		sent <- c.SendWait("READY=1")
	}()
	tid := <-thread
	for range 20 { // each meets it asleep in sendmsg(2)
		for state(t, tid) != "S" {
			select {
			case err := <-sent:
				t.Fatalf("the wait has ended: %v", err)
			default:
			}
			runtime.Gosched()
		}
		if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	text := make([]byte, 64)
	for range queued {
		if _, _, err := unix.Recvfrom(full, text, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if n, _, err := unix.Recvfrom(full, text, unix.MSG_DONTWAIT); err != nil || string(text[:n]) != "READY=1" {
		t.Errorf("%q, %v", text[:max(n, 0)], err)
	}
}

// state returns what a thread of this process is doing (proc_pid_stat(5)).
func state(t *testing.T, tid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return after[:1]
}

// TestFlush: what was sent before has been handled, however slow the handler is.
func TestFlush(t *testing.T) {
	var handled atomic.Int64
	s, err := Listen(func(m Message) {
		if _, own := m.Get("BARRIER"); own {
			return
		}
		runtime.Gosched()
		handled.Add(1)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Dial(s.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range int64(200) {
		if err := c.SendWait("STATUS=x"); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil || handled.Load() != i+1 {
			t.Fatalf("%d of %d handled, %v", handled.Load(), i+1, err)
		}
	}
}
