package admin

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func ids(events []Event) string {
	text := ""
	for _, e := range events {
		if e.Kind == KindLost {
			text += fmt.Sprintf("lost%d@", e.Lost)
		}
		text += fmt.Sprint(e.ID, " ")
	}
	return text
}

func TestLogKeepsTheLatest(t *testing.T) {
	l := NewLog(3)
	if got := l.After(0); len(got) != 0 {
		t.Error(got)
	}
	if got := l.Recent(5); len(got) != 0 {
		t.Error(got)
	}
	for n := uint64(1); n <= 5; n++ {
		if e := l.Append(Event{Kind: "x"}); e.ID != n || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
		if n == 2 && ids(l.After(0)) != "1 2 " {
			t.Error(ids(l.After(0)))
		}
	}
	for after, want := range map[uint64]string{
		0: "lost2@2 3 4 5 ", 1: "lost1@2 3 4 5 ", 2: "3 4 5 ", 4: "5 ", 5: "",
		6: "lost2@2 3 4 5 ", 1 << 63: "lost2@2 3 4 5 ", // of an earlier supervisor
	} {
		if got := ids(l.After(after)); got != want {
			t.Errorf("after %d: %q, want %q", after, got, want)
		}
	}
	if got := ids(l.Recent(2)); got != "4 5 " {
		t.Error(got)
	}
	if got := ids(l.Recent(9)) + ids(l.Recent(0)) + ids(l.Recent(-1)); got != "3 4 5 " {
		t.Error(got)
	}
}

// TestFollower hears of each event without asking again, and of those that it missed.
func TestFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(3)
		ctx, cancel := context.WithCancel(t.Context())
		var got []Event
		slow := make(chan struct{})
		go func() {
			for e := range l.Events(ctx, 0, true) {
				got = append(got, e)
				if e.ID == 3 {
					<-slow
				}
			}
			close(slow)
		}()
		for range 3 {
			l.Append(Event{})
			synctest.Wait()
		}
		for range 10 {
			l.Append(Event{})
		}
		slow <- struct{}{}
		synctest.Wait()
		cancel()
		<-slow
		if text := ids(got); text != "1 2 3 lost7@10 11 12 13 " {
			t.Error(text)
		}
	})
}

// TestLogIsShared appends and follows from many goroutines; a fast follower of a large
// log misses nothing.
func TestLogIsShared(t *testing.T) {
	l := NewLog(10000)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				l.Append(Event{})
				l.Recent(3)
			}
		})
		wg.Go(func() {
			next := uint64(1)
			for e := range l.Events(ctx, 0, true) {
				if e.ID != next {
					t.Errorf("event %d, want %d", e.ID, next)
					return
				}
				if next++; next > 4000 {
					return
				}
			}
			t.Errorf("it ended after %d events", next-1)
		})
	}
	wg.Wait()
}
