package worker

import (
	"testing"
	"time"

	"preforkd/internal/ipc"
)

func TestLeveling(t *testing.T) {
	now := time.Now()
	var l leveling
	if !l.takes(1000, now) {
		t.Error("it holds before it has begun")
	}
	l.begin(ipc.Level{Connections: 9, Round: 1}, now)
	l.begin(ipc.Level{Connections: 4, Round: 2}, now)
	l.end(1)
	last := now.Add(ipc.LevelLimit - 1)
	if !l.takes(3, last) || l.takes(4, last) {
		t.Error("the level of the second round does not hold")
	}
	if !l.takes(4, now.Add(ipc.LevelLimit)) {
		t.Error("the round has no limit")
	}
	if l.end(2); !l.takes(4, now) {
		t.Error("the round does not end")
	}
}
