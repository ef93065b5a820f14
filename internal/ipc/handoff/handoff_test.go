package handoff

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const roleEnv = "HANDOFF_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "flood":
		os.Exit(flood())
	}
}

func open(t testing.TB) *Queue {
	t.Helper()
	r, w, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	q, err := Open(r, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// stream returns the two ends of a connection as descriptors.
func stream(t testing.TB) (client, server int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func TestPutTake(t *testing.T) {
	q := open(t)
	client, server := stream(t)
	defer unix.Close(client)
	want := Message{Kind: Idle, Generation: 1<<63 + 7, Listener: 3, Since: time.Unix(1700000000, 123456789)}
	if _, _, err := q.Take(); !errors.Is(err, ErrEmpty) {
		t.Fatalf("take from an empty queue: %v", err)
	}
	if _, err := unix.Write(client, []byte("sent before the handoff")); err != nil {
		t.Fatal(err)
	}
	if err := q.Put(server, want); err != nil {
		t.Fatal(err)
	}
	unix.Close(server)
	if q.Depth() != 1 {
		t.Errorf("depth %d", q.Depth())
	}
	fd, got, err := q.Take()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if !got.Since.Equal(want.Since) {
		t.Errorf("since %v", got.Since)
	}
	if got.Since = want.Since; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %d, %v", flags, err)
	}
	buffer := make([]byte, 64)
	if n, _ := unix.Read(fd, buffer); string(buffer[:n]) != "sent before the handoff" {
		t.Errorf("read %q", buffer[:n])
	}
	if q.Depth() != 0 {
		t.Errorf("depth %d", q.Depth())
	}
}

// TestFull: a refused connection stays the caller's, and the queue holds as many as its
// buffer promises.
func TestFull(t *testing.T) {
	q := open(t)
	client, server := stream(t)
	defer unix.Close(client)
	defer unix.Close(server)
	n := 0
	for ; ; n++ {
		err := q.Put(server, Message{Kind: Idle})
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n < 270 { // the default buffer's, where a larger one is not allowed
		t.Errorf("full with %d", n)
	}
	if q.Depth() != n {
		t.Errorf("depth %d of %d", q.Depth(), n)
	}
	if _, err := unix.Write(server, []byte("x")); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	fd, _, err := q.Take()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := q.Put(server, Message{Kind: Idle}); err != nil {
		t.Errorf("with room again: %v", err)
	}
	t.Logf("%d messages", n)
}

func TestGarbageIsDropped(t *testing.T) {
	q := open(t)
	client, server := stream(t)
	defer unix.Close(client)
	good := Message{Kind: Idle}.encode(1)
	foreign := good
	foreign[0]++
	long := append(bytes.Clone(good[:]), 0)
	for _, garbage := range []struct {
		data []byte
		fds  []int
	}{
		{[]byte("short"), nil},
		{nil, []int{server}},
		{good[:len(good)-1], []int{server}},
		{long, []int{server}},
		{foreign[:], []int{server}},
		{good[:], nil},                       // ours, but without a connection
		{[]byte("x"), []int{server, server}}, // two descriptors: both are closed
	} {
		var control []byte
		if garbage.fds != nil {
			control = unix.UnixRights(garbage.fds...)
		}
		if _, err := unix.SendmsgN(q.write, garbage.data, control, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Put(server, Message{Kind: Idle, Listener: 9}); err != nil {
		t.Fatal(err)
	}
	unix.Close(server)
	var fd int
	var m Message
	err := ErrEmpty
	for errors.Is(err, ErrEmpty) && q.Depth() > 0 { // an empty message reads as the end of the queue
		fd, m, err = q.Take()
	}
	if err != nil || m.Listener != 9 {
		t.Fatalf("%+v, %v", m, err)
	}
	if q.Dropped() != 7 || q.Lost() != 0 {
		t.Errorf("dropped %d, lost %d", q.Dropped(), q.Lost())
	}
	unix.Close(fd)
	if n, err := unix.Read(client, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("a descriptor of the garbage is still open: %d, %v", n, err)
	}
}

// TestWait: it wakes for a message and for the end of its context, and an ended one does
// not spoil the next.
func TestWait(t *testing.T) {
	q := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- q.Wait(ctx) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	client, server := stream(t)
	defer unix.Close(client)
	defer unix.Close(server)
	go func() { ended <- q.Wait(context.Background()) }()
	if err := q.Put(server, Message{Kind: Idle}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("%v", err)
	}
	q.Close()
	if err := q.Wait(context.Background()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := q.Put(server, Message{Kind: Idle}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("put after Close: %v", err)
	}
	if _, _, err := q.Take(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("take after Close: %v", err)
	}
}

// TestCompetingTakers: every connection reaches exactly one of several takers that hold
// the queue by descriptors of their own, as processes do.
func TestCompetingTakers(t *testing.T) {
	const takers, conns = 4, 2000
	q := open(t)
	var mu sync.Mutex
	seen := map[int]int{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for range takers {
		own, err := Open(duplicate(t, int(q.read.Fd())), duplicate(t, q.write))
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		wg.Go(func() {
			for own.Wait(ctx) == nil {
				fd, m, err := own.Take()
				if err != nil {
					continue
				}
				unix.Close(fd)
				mu.Lock()
				seen[m.Listener]++
				all := len(seen) == conns
				mu.Unlock()
				if all {
					cancel()
				}
			}
		})
	}
	_, server := stream(t)
	for i := range conns {
		for q.Put(server, Message{Kind: Idle, Listener: i}) != nil {
			time.Sleep(time.Millisecond) // full, where the buffer may not be raised
		}
	}
	wg.Wait()
	for i := range conns {
		if seen[i] != 1 {
			t.Errorf("connection %d was taken %d times", i, seen[i])
		}
	}
}

func duplicate(t testing.TB, fd int) int {
	t.Helper()
	got, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestDescriptorLimit: without two free descriptors the connection stays in the queue.
func TestDescriptorLimit(t *testing.T) {
	q := open(t)
	client, server := stream(t)
	defer unix.Close(client)
	if err := q.Put(server, Message{Kind: Idle}); err != nil {
		t.Fatal(err)
	}
	unix.Close(server)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	free := duplicate(t, client) // the lowest free number: one more is beyond the limit
	unix.Close(free)
	limit := func(n int) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: was.Max}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{free, free, free + 1, free + 1} {
		limit(n)
		if _, _, err := q.Take(); !errors.Is(err, ErrNoRoom) {
			t.Fatalf("with room for %d: %v", n-free, err)
		}
	}
	if q.Depth() != 1 || q.Lost() != 0 {
		t.Errorf("depth %d, lost %d", q.Depth(), q.Lost())
	}
	limit(free + 2)
	fd, _, err := q.Take()
	if err != nil {
		t.Fatalf("with room for two: %v", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(client, []byte("x")); err != nil {
		t.Errorf("the client's end: %v", err)
	}
}

// TestTooManyInFlight: the kernel bounds the descriptors in flight of an unprivileged
// user by RLIMIT_NOFILE; Put reports that as a full queue.
func TestTooManyInFlight(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=flood")
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(out)))
	if err != nil || n < 1 || n > 110 {
		t.Errorf("full after %q", out)
	}
}

// flood puts connections until the queue is full and prints how many it held.
func flood() int {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}); err != nil {
		return 1
	}
	r, w, err := Pair()
	if err != nil {
		return 1
	}
	q, err := Open(r, w)
	if err != nil {
		return 1
	}
	n := 0
	for ; q.Put(r, Message{Kind: Idle}) == nil; n++ {
	}
	if err := q.Put(r, Message{Kind: Idle}); !errors.Is(err, ErrFull) {
		return 1
	}
	os.Stdout.WriteString(strconv.Itoa(n))
	return 0
}

func TestOpenRefusesOtherSockets(t *testing.T) {
	a, b := stream(t)
	if _, err := Open(a, b); err == nil {
		t.Error("a stream socket was taken for a queue")
	}
}

func BenchmarkPutTake(b *testing.B) {
	q := open(b)
	_, server := stream(b)
	for b.Loop() {
		if err := q.Put(server, Message{Kind: Idle}); err != nil {
			b.Fatal(err)
		}
		fd, _, err := q.Take()
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}

// TestVersionsOfMessages: what a worker of version 1 has written names no client, whatever
// there is in the room that it left, and one of version 2 is read by it, which ignores more.
func TestVersionsOfMessages(t *testing.T) {
	for _, text := range []string{"192.0.2.7:12345", "[2001:db8::1]:1"} {
		want := Message{Kind: Idle, Generation: 3, Client: netip.MustParseAddrPort(text)}
		w := want.encode(1)
		if m, ok := w.decode(); !ok || m.Client != want.Client {
			t.Errorf("%+v, %v", m, ok)
		}
		binary.LittleEndian.PutUint16(w[4:], 1)
		if m, ok := w.decode(); !ok || m.Client.IsValid() || m.Generation != 3 {
			t.Errorf("%+v, %v", m, ok)
		}
	}
}
