package notify

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// keeping serves a channel as a main process does.
func keeping(t *testing.T) (c *Client, has func(name string) bool) {
	t.Helper()
	server, client, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards held
	held := map[string]int{}
	s, err := Serve(server, func(m Message) {
		mu.Lock()
		defer mu.Unlock()
		name, _ := m.Get("FDNAME")
		switch {
		case len(m.Descriptors) != 1:
			delete(held, name)
		case name != "":
			held[name] = m.Descriptors[0]
		default:
			if _, fetch := m.Get("FETCH"); fetch {
				if err := Answer(m.Descriptors[0], held); err != nil {
					t.Error(err)
				}
				return
			}
			unix.Close(m.Descriptors[0])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if c, err = DialFD(client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c, func(name string) bool {
		mu.Lock()
		defer mu.Unlock()
		_, ok := held[name]
		return ok
	}
}

// TestFetchReturnsWhatWasStored: more than fits into one message.
func TestFetchReturnsWhatWasStored(t *testing.T) {
	c, _ := keeping(t)
	if held, _, err := c.Fetch(); err != nil || len(held) != 0 {
		t.Fatalf("%v, %v", held, err)
	}
	const n = 2*batch + 7
	for i := range n {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p[1], []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if err := c.Store(fmt.Sprintf("pipe/%d", i), p[0]); err != nil {
			t.Fatal(err)
		}
		unix.Close(p[0])
		defer unix.Close(p[1])
	}
	if err := c.Remove("pipe/3"); err != nil {
		t.Fatal(err)
	}
	held, _, err := c.Fetch()
	if err != nil || len(held) != n-1 {
		t.Fatalf("%d of %d, %v", len(held), n-1, err)
	}
	for i := range n {
		fd, ok := held[fmt.Sprintf("pipe/%d", i)]
		if !ok {
			if i != 3 {
				t.Errorf("pipe %d is missing", i)
			}
			continue
		}
		b := make([]byte, 1)
		if _, err := unix.Read(fd, b); err != nil || b[0] != byte(i) {
			t.Errorf("pipe %d holds %d, %v", i, b[0], err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("pipe %d would be inherited: %v", i, err)
		}
		unix.Close(fd)
	}
}

// TestFetchEndsWithTheServer: nobody waits for ever.
func TestFetchEndsWithTheServer(t *testing.T) {
	server, client, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := DialFD(client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unix.Close(server)
	if held, _, err := c.Fetch(); err == nil {
		t.Errorf("%v", held)
	}
}

// TestBarrierWaits until what was sent before has been read.
func TestBarrierWaits(t *testing.T) {
	c, has := keeping(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := c.Store("null", int(null.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := c.Barrier(); err != nil {
		t.Fatal(err)
	}
	if !has("null") {
		t.Error("it has not been read")
	}
}

// TestListenFDGoesOn: a successor takes a socket over, and senders notice nothing.
func TestListenFDGoesOn(t *testing.T) {
	first, _ := serve(t)
	fd, err := first.Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(first.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first.Close()
	if err := c.SendWait("STATUS=nobody reads"); err != nil {
		t.Fatal(err)
	}
	got := make(chan Message, 1)
	second, err := ListenFD(fd, func(m Message) { got <- m })
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if m := await(t, got); m.Text != "STATUS=nobody reads" || m.PID != os.Getpid() || second.Name() != first.Name() {
		t.Errorf("%+v from %s, before %s", m, second.Name(), first.Name())
	}
}
