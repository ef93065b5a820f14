package handoff

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFirst: who looks at the first takes nothing, and who holds the queue sees how many wait and
// since when.
func TestFirst(t *testing.T) {
	q := open(t)
	if err := q.First(func(int, Message) { t.Error("there is one") }); !errors.Is(err, ErrEmpty) {
		t.Errorf("%v", err)
	}
	client, server := stream(t)
	defer unix.Close(client)
	defer unix.Close(server)
	before := descriptors(t)
	seen := Clock().Truncate(time.Microsecond)
	for i := range 3 {
		if err := q.Put(server, Message{Kind: Waiting, Listener: i, Seen: seen + time.Duration(i)*time.Second, Limit: 1234 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := q.First(func(fd int, m Message) {
			if fd < 0 || m.Listener != 0 || m.Seen != seen || m.Limit != 1240*time.Millisecond { // it is never over before its time
				t.Errorf("%d, %+v", fd, m)
			}
		}); err != nil {
			t.Error(err)
		}
	}
	fd := -1
	if err := q.readRaw.Control(func(d uintptr) { fd = int(d) }); err != nil {
		t.Fatal(err)
	}
	if n, at := Waits(fd); n != 3 || at != seen {
		t.Errorf("%d wait, the first since %v", n, at)
	}
	if got := descriptors(t); got != before {
		t.Errorf("%d descriptors, %d before", got, before)
	}
	for i := range 3 {
		fd, m, err := q.Take()
		if err != nil || m.Listener != i {
			t.Fatal(m, err)
		}
		unix.Close(fd)
	}
	if n, at := Waits(fd); n != 0 || at != 0 {
		t.Errorf("%d wait, the first since %v", n, at)
	}
}

// TestLimitsTravel: what does not fit is no limit.
func TestLimitsTravel(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{
		0: 0, 1: 10 * time.Millisecond, time.Second: time.Second, 655350 * time.Millisecond: 655350 * time.Millisecond, time.Hour: 0,
	} {
		w := Message{Kind: Waiting, Seen: 9 * 365 * 24 * time.Hour, Limit: limit}.encode(1)
		if m, ok := w.decode(); !ok || m.Limit != want {
			t.Errorf("%v: %v, want %v", limit, m.Limit, want)
		}
	}
}
