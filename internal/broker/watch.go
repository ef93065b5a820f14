package broker

import (
	"context"
	"fmt"
	"time"

	"preforkd/internal/ipc/store"
)

// How often the watchdog looks: at the room on the disk, which costs one system call, and by a
// write, which costs a sync.
const (
	roomEvery   = 250 * time.Millisecond
	canaryEvery = 5 * time.Second
	canaryAgain = time.Second // after one that has failed
	// canaryMost is after how many of those in a row the server is started again: after the disk
	// was full it does not write until then.
	canaryMost = 2
)

// watch looks after the store until ctx ends.
func (b *broker) watch(ctx context.Context) error {
	ticker := time.NewTicker(roomEvery)
	defer ticker.Stop()
	next := time.Now().Add(canaryEvery)
	b.note()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		short := b.short()
		if short != "" {
			b.refuse(short)
		} else if b.failed == 0 && !b.engine.wounded() {
			b.refuse("")
		}
		if time.Now().Before(next) && !b.engine.wounded() {
			continue
		}
		if err := b.write(ctx, short != ""); err != nil {
			return err
		}
		next = time.Now().Add(canaryEvery)
		if b.failed > 0 {
			next = time.Now().Add(canaryAgain)
		}
	}
}

// write tries whether the store can be written to. Where it cannot though there is room the
// server is started again.
func (b *broker) write(ctx context.Context, short bool) error {
	err := b.engine.canary(ctx)
	if err == nil {
		b.failed = 0
		b.note()
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	b.failed++
	b.refuse(fmt.Sprintf("nothing can be written to %s: %v", b.Dir, err))
	if short || b.failed < canaryMost && !b.engine.wounded() {
		return nil
	}
	b.Log.Warn("task queue starts its server again", "store", b.Dir)
	b.gate.close()
	b.engine.stop()
	if err := b.open(ctx); err != nil {
		return err
	}
	b.failed = 0
	b.refuse(b.short())
	b.announce()
	return nil
}

// short says that the disk has less room than the reserve, or that as much is stored as may be;
// empty: there is room.
func (b *broker) short() string {
	if used := b.engine.used(); used >= b.limit {
		return fmt.Sprintf("%d MiB of tasks and results are stored, and %d MiB may be (tasks.max_store, and three quarters of the disk)", used>>20, b.limit>>20)
	}
	space, err := store.SpaceOf(b.Dir)
	if err != nil || space.Free >= b.Reserve {
		return ""
	}
	return fmt.Sprintf("%s has %d MiB free, tasks.reserve is %d MiB", b.Dir, space.Free>>20, b.Reserve>>20)
}

// note writes down what the server has.
func (b *broker) note() {
	found, err := b.engine.found()
	if err == nil {
		err = writeMark(b.Dir, mark{Streams: found.counts()})
	}
	if err != nil {
		b.Log.Debug("what the task queue holds is not noted", "err", err)
	}
	b.announce()
}
