package worker

import (
	"testing"
	"time"

	"preforkd/internal/ipc"
)

func TestRounds(t *testing.T) {
	now := time.Now()
	var r rounds
	if !r.takes(1000, now) {
		t.Error("a level holds before any has begun")
	}
	r.hold(ipc.Level{Connections: 9, Round: 1}, now)
	r.hold(ipc.Level{Connections: 4, Round: 2}, now)
	r.settle(1)
	last := now.Add(ipc.LevelLimit - 1)
	if !r.takes(3, last) || r.takes(4, last) {
		t.Error("the level of the second round does not hold")
	}
	if !r.takes(4, now.Add(ipc.LevelLimit)) {
		t.Error("the round has no limit")
	}
	if r.settle(2); !r.takes(4, now) {
		t.Error("the round does not end")
	}
	if r.hold(ipc.Level{Connections: 1, Round: 2}, now); !r.takes(4, now) {
		t.Error("a round begins that was ended before")
	}
}

// TestRoundsEndGiving: nobody takes who gives, and a round that ends lets him take.
func TestRoundsEndGiving(t *testing.T) {
	now := time.Now()
	var r rounds
	first, endFirst := r.enter(t.Context(), 1)
	second, endSecond := r.enter(t.Context(), 2)
	if r.takes(0, now) {
		t.Error("it takes what it gives")
	}
	r.settle(1)
	if first.Err() == nil || second.Err() != nil || r.takes(0, now) {
		t.Errorf("after the first round: %v, %v", first.Err(), second.Err())
	}
	endFirst()
	if endSecond(); !r.takes(0, now) {
		t.Error("it gives for ever")
	}
	late, end := r.enter(t.Context(), 1)
	if late.Err() == nil || !r.takes(0, now) {
		t.Error("a round begins that was ended before")
	}
	end()
}
