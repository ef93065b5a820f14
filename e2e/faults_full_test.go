package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// squeezeName is this program's first argument where it starts a worker.
const squeezeName = "squeeze"

// smallest asks for the smallest send buffer that the kernel grants (socket(7)): some
// messages instead of thousands.
const smallest = 1

// TestFullQueue reloads with a handoff queue that has room for a handful of connections,
// while a hundred want to go: what it refuses is served where it is, and goes later.
func TestFullQueue(t *testing.T) {
	const conns = 4 * clients // most of them idle: they go all at once
	path := filepath.Join(t.TempDir(), "queue")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	worker := filepath.Join(testkit.Programs(t), "preforkd-worker")
	f := begin(t, testkit.Options{}, fmt.Sprintf("worker: {kind: preforkd, command: [%s, %s, %s, %s]}\n%s", self, squeezeName, path, worker, quick))
	queue := receive(t, ln)
	room := capacity(t)
	g, end := f.load(load.Options{Conns: conns, Think: 100 * time.Millisecond})
	full, tries := 0, 0
	for want := times(3, 20); full < want; tries++ {
		if tries > 20*want {
			t.Fatalf("the queue, with room for %d, has never been full", room)
		}
		over, deepest := make(chan struct{}), make(chan int)
		go func() { deepest <- watch(queue, over) }()
		f.reload().end(0)
		close(over)
		if <-deepest >= room {
			full++
		}
		answers(t, g, 2*conns)
	}
	t.Logf("a queue with room for %d was full in %d of %d reloads", room, full, tries)
	f.noticed(end(), conns)
}

// watch returns how many connections a queue held at most until over.
func watch(queue int, over <-chan struct{}) (deepest int) {
	for {
		select {
		case <-over:
			return deepest
		default:
		}
		if n, err := unix.IoctlGetInt(queue, unix.TIOCINQ); err == nil {
			deepest = max(deepest, n/message)
		}
	}
}

// message is how many bytes travel with a connection (docs/internals/handoff.md).
const message = 64

// capacity returns how many connections the smallest queue holds.
func capacity(t *testing.T) (n int) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	if err := syscall.SetsockoptInt(pair[1], syscall.SOL_SOCKET, syscall.SO_SNDBUF, smallest); err != nil {
		t.Fatal(err)
	}
	for {
		err := syscall.Sendmsg(pair[1], make([]byte, message), syscall.UnixRights(pair[0]), nil, 0)
		if errors.Is(err, syscall.EAGAIN) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
}

// receive returns the end of the queue that is read, which a worker has sent. The others'
// are the same queue: they are closed.
func receive(t *testing.T, ln *net.UnixListener) (queue int) {
	t.Helper()
	accept := func() (int, error) {
		c, err := ln.AcceptUnix()
		if err != nil {
			return -1, err
		}
		defer c.Close()
		control := make([]byte, syscall.CmsgSpace(4))
		_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), control)
		if err != nil {
			return -1, err
		}
		messages, err := syscall.ParseSocketControlMessage(control[:n])
		if err != nil || len(messages) != 1 {
			return -1, fmt.Errorf("%d messages, %w", len(messages), err)
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil {
			return -1, err
		}
		return fds[0], nil
	}
	queue, err := accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(queue) })
	go func() { // ends with the listener
		for {
			fd, err := accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				syscall.Close(fd)
			}
		}
	}()
	return queue
}

// squeeze makes the handoff queue that this process has inherited as small as can be, sends
// the end that is read to whoever listens on path, and becomes the worker. It returns only
// the reason why it cannot.
func squeeze(path, worker string) error {
	listeners, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return fmt.Errorf("squeeze: LISTEN_FDS: %w", err)
	}
	names := strings.Split(os.Getenv(ipc.EnvFDNames), ":")
	in, out := slices.Index(names, ipc.FDAdoptIn), slices.Index(names, ipc.FDAdoptOut)
	if in < 0 || out < 0 {
		return fmt.Errorf("squeeze: no queue in %q", names)
	}
	const first = 3 // SD_LISTEN_FDS_START
	if err := syscall.SetsockoptInt(first+listeners+out, syscall.SOL_SOCKET, syscall.SO_SNDBUF, smallest); err != nil {
		return fmt.Errorf("squeeze: shorten the queue: %w", err)
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("squeeze: %w", err)
	}
	if _, _, err := c.WriteMsgUnix([]byte{0}, syscall.UnixRights(first+listeners+in), nil); err != nil {
		return fmt.Errorf("squeeze: send the queue: %w", err)
	}
	return fmt.Errorf("squeeze: %w", syscall.Exec(worker, []string{worker}, os.Environ()))
}
