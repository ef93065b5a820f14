package admin

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"
)

// Event is something that has happened to the service.
type Event struct {
	ID         uint64    `json:"id"` // from 1 on, without gaps
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"` // one word, as "ready", "crash", "reload"
	Text       string    `json:"text"` // for people
	Pool       string    `json:"pool,omitempty"`
	Slot       *int      `json:"slot,omitempty"` // nil: of no slot
	PID        int       `json:"pid,omitempty"`
	Generation uint64    `json:"generation,omitempty"`
	Model      string    `json:"model,omitempty"`
	Version    string    `json:"version,omitempty"` // of the model
	Request    string    `json:"request,omitempty"` // digest of the one in which a worker died of the model
	Count      uint64    `json:"count,omitempty"`   // of a quarantine: how many workers died
	Lost       uint64    `json:"lost,omitempty"`    // of KindLost: how many events
}

// KindLost is the kind of an event that stands for Lost others, which are no longer
// kept. Its ID is that of the last of them.
const KindLost = "lost"

// Log keeps the latest events. All methods are safe for concurrent use; none waits for
// a reader.
type Log struct {
	mu     sync.Mutex // guards everything below
	ring   []Event    // event n lies at (n-1) % cap
	last   uint64     // ID of the latest event; 0: none
	wake   chan struct{}
	asleep bool // somebody waits for wake to be closed
}

// NewLog returns a log that keeps the latest keep events, at least one.
func NewLog(keep int) *Log {
	return &Log{ring: make([]Event, 0, max(keep, 1)), wake: make(chan struct{})}
}

// Append gives e the next ID, and the current time if it has none, keeps it and returns
// it. The oldest event is forgotten where the log is full.
func (l *Log) Append(e Event) Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.ID = l.last
	if len(l.ring) < cap(l.ring) {
		l.ring = append(l.ring, e)
	} else {
		l.ring[l.index(e.ID)] = e
	}
	if l.asleep {
		close(l.wake)
		l.wake, l.asleep = make(chan struct{}), false
	}
	return e
}

// After returns the kept events with an ID larger than id, oldest first. Where some of
// those are no longer kept, the first one says so (KindLost).
//
// An ID that the log has not given yet is one of an earlier supervisor: then everything
// kept comes.
func (l *Log) After(id uint64) []Event {
	events, _ := l.after(id)
	return events
}

// Recent returns the latest n events, or as many as there are, oldest first.
func (l *Log) Recent(n int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.from(l.last - min(uint64(max(n, 0)), uint64(len(l.ring))) + 1)
}

// Events yields the events after id. With follow it waits for more until ctx is done.
// A reader that is too slow finds an event of KindLost in place of those it missed.
func (l *Log) Events(ctx context.Context, after uint64, follow bool) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			events, wake := l.after(after)
			for _, e := range events {
				if !yield(e) {
					return
				}
				after = e.ID
			}
			switch {
			case len(events) > 0: // there may be more by now
				continue
			case !follow:
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
		}
	}
}

// after returns what After does, and, where that is nothing, a channel that is closed
// when there is more.
func (l *Log) after(id uint64) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id > l.last {
		id = 0
	}
	if id == l.last {
		l.asleep = true
		return nil, l.wake
	}
	oldest := l.last - uint64(len(l.ring)) + 1
	if id+1 >= oldest {
		return l.from(id + 1), nil
	}
	n := oldest - id - 1
	gap := Event{ID: oldest - 1, Kind: KindLost, Lost: n, Text: fmt.Sprintf("%d events are no longer kept", n)}
	events := l.from(oldest)
	gap.Time = events[0].Time
	return append([]Event{gap}, events...), nil
}

// from returns the events from ID first on, which are all kept. The lock is held.
func (l *Log) from(first uint64) []Event {
	events := make([]Event, 0, l.last-first+1)
	for id := first; id <= l.last; id++ {
		events = append(events, l.ring[l.index(id)])
	}
	return events
}

func (l *Log) index(id uint64) int { return int((id - 1) % uint64(cap(l.ring))) }
