package handoff

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzDecode: what is accepted says the same when it is sent on.
func FuzzDecode(f *testing.F) {
	w := Message{Kind: Idle, Generation: 7, Listener: -1}.encode(9)
	f.Add(w[:])
	w = Message{Kind: Idle, Client: netip.MustParseAddrPort("[2001:db8::1]:9")}.encode(9)
	f.Add(w[:])
	w = Message{Kind: Waiting, Seen: 12345678 * time.Microsecond, Limit: 1500 * time.Millisecond}.encode(9)
	f.Add(w[:])
	f.Add(bytes.Repeat([]byte{0xff}, messageBytes))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var w wire
		copy(w[:], data)
		m, ok := w.decode()
		if !ok {
			return
		}
		again := m.encode(0)
		if got, ok := again.decode(); !ok || got.Kind != m.Kind || got.Generation != m.Generation || got.Listener != m.Listener || got.Client != m.Client || got.Seen != m.Seen || got.Limit != m.Limit || !got.Since.Equal(m.Since) {
			t.Errorf("%+v became %+v, %v", m, got, ok)
		}
	})
}

// FuzzTake puts any packet into the queue before a connection: Take passes over what is no
// message, keeps no descriptor of it, and finds the connection.
func FuzzTake(f *testing.F) {
	w := Message{Kind: Idle, Generation: 7}.encode(9)
	f.Add(w[:], 1)
	f.Add(w[:], 0)
	f.Add(w[:], 3)
	f.Add(w[:63], 1)
	f.Add(append(bytes.Clone(w[:]), 0), 1)
	f.Add([]byte("nonsense"), 2)
	f.Fuzz(func(t *testing.T, data []byte, fds int) {
		if len(data) == 0 || len(data) > 4096 || fds < 0 || fds > 8 {
			t.Skip() // an empty packet reads as the queue's end; nobody who can write sends one
		}
		q := open(t)
		client, server := stream(t)
		defer unix.Close(client)
		before := descriptors(t)
		var rights []byte
		if fds > 0 {
			all := make([]int, fds)
			for i := range all {
				all[i] = server
			}
			rights = unix.UnixRights(all...)
		}
		if err := unix.Sendmsg(q.write, data, rights, nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := q.Put(server, Message{Kind: Idle, Listener: 5}); err != nil {
			t.Fatal(err)
		}
		for found := false; !found; {
			fd, m, err := q.Take()
			if err != nil {
				t.Fatalf("the connection behind %q: %v", data, err)
			}
			found = m.Listener == 5
			unix.Close(fd)
		}
		if _, _, err := q.Take(); !errors.Is(err, ErrEmpty) {
			t.Errorf("more came: %v", err)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		unix.Close(server)
	})
}

// descriptors returns how many this process has.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
