package broker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/ipc/store"
)

// Options are what a broker is made of.
type Options struct {
	Dir string // the store; store.Prepare has made it
	// MaxStore is how many bytes may be stored, at most; ShareOfFree bounds it further.
	MaxStore uint64
	// Reserve is how much of the file system stays free: below it nothing new is taken.
	Reserve uint64
	// Memory is what the garbage collector keeps to; 0: no limit.
	Memory int64
	// Sync is how often what was accepted is brought to the disk; 0: before each answer.
	Sync time.Duration
	// Log gets what the server says as well.
	Log *slog.Logger
	// Supervisor is told how this process is; nil: nobody is.
	Supervisor *notify.Client
}

// shareOfFree is how much of the room that there is the store may take: nats-server's own default.
const shareOfFree = 0.75

// queueDir is the server's own directory in the store.
const queueDir = "queue"

// broker is what Run wires.
type broker struct {
	Options
	access store.Access
	gate   *gate
	engine *engine
	limit  uint64
	full   string                      // why nothing new is taken
	failed int                         // canaries in a row
	said   atomic.Pointer[store.State] // to clients
}

// Run waits for the store, serves it until ctx ends, and returns when everything is on the disk.
// An error is an *ipc.Failure where an operator can do something about it.
func Run(ctx context.Context, o Options) error {
	if o.Memory > 0 {
		debug.SetMemoryLimit(o.Memory)
	}
	b := &broker{Options: o}
	if err := b.take(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	var err error
	if b.access, err = store.Read(o.Dir); err != nil {
		return &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "remove the file and start the service again"}
	}
	if err := b.room(); err != nil {
		return err
	}
	b.gate = newGate(b.access.Token)
	b.said.Store(&store.State{Sync: b.sync(), Limit: b.limit})
	if err := b.open(ctx); err != nil {
		if ctx.Err() != nil { // it is not wanted any more
			return nil
		}
		return err
	}
	b.tell("READY=1", "STATUS=serves")
	b.Log.Info("task queue ready", "address", b.access.Address(), "store", b.Dir, "limit", b.limit, "sync", b.sync())
	err = b.watch(ctx)
	b.tell("STOPPING=1")
	b.close()
	return err
}

// take locks the store, or returns when ctx has ended before.
func (b *broker) take(ctx context.Context) error {
	locked := make(chan error, 1)
	go func() { // ends with the lock, or with the process
		locked <- store.Lock(b.Dir, func() {
			b.Log.Info("task queue stands by: another broker has the store", "store", b.Dir)
			b.tell("STATUS=stands by")
		})
	}()
	select {
	case err := <-locked:
		if err != nil {
			return &ipc.Failure{Exit: ipc.ExitPermission, What: err.Error(), Err: err, Try: "give the service's user the directory, or set tasks.store"}
		}
		return nil
	case <-ctx.Done():
		return nil
	}
}

// room decides how much may be stored.
func (b *broker) room() error {
	space, err := store.SpaceOf(b.Dir)
	if err != nil {
		return err
	}
	used := usedBytes(filepath.Join(b.Dir, queueDir))
	b.limit = uint64(float64(space.Free+used) * shareOfFree)
	if b.MaxStore > 0 {
		b.limit = min(b.limit, b.MaxStore)
	}
	return nil
}

// usedBytes is what the files below dir have.
func usedBytes(dir string) (n uint64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += uint64(info.Size())
			}
		}
		return nil
	})
	return n
}

// open starts the server, looks what it has found, and lets clients in.
func (b *broker) open(ctx context.Context) error {
	before := stored(b.serverDir())
	if err := b.start(ctx); err != nil {
		return err
	}
	found, err := b.engine.found()
	if err == nil {
		var again bool
		if again, err = b.judge(before, found); again {
			b.engine.stop()
			if err = b.start(ctx); err == nil {
				if found, err = b.engine.found(); err == nil {
					_, err = b.judge(stored(b.serverDir()), found)
				}
			}
		}
	}
	if err == nil {
		err = b.engine.makeCanary(ctx)
	}
	if err != nil {
		b.engine.stop()
		return err
	}
	b.gate.open()
	return nil
}

func (b *broker) start(ctx context.Context) (err error) {
	b.engine, err = startEngine(ctx, engineOptions{
		dir: filepath.Join(b.Dir, queueDir), port: b.access.Port, sync: b.Sync, gate: b.gate, log: b.Log, state: b.said.Load,
	})
	return err
}

// close ends the server and notes what it had, so that the next one can tell what is missing.
func (b *broker) close() {
	b.gate.close()
	found, err := b.engine.found()
	b.engine.stop()
	if err == nil {
		err = writeMark(b.Dir, mark{Clean: true, Streams: found.counts()})
	}
	if err != nil {
		b.Log.Warn("what the task queue holds is not noted", "err", err)
	}
	b.Log.Info("task queue stopped")
}

func (b *broker) serverDir() string { return filepath.Join(b.Dir, queueDir, "jetstream", account) }

func (b *broker) sync() string {
	if b.Sync == 0 {
		return "always"
	}
	return b.Sync.String()
}

// tell tells the supervisor.
func (b *broker) tell(lines ...string) {
	if err := b.Supervisor.SendWait(lines...); err != nil {
		b.Log.Warn("supervisor not told", "err", err)
	}
}

// refuse notes why nothing new is taken; empty: it is. Clients and supervisor hear of a change.
func (b *broker) refuse(why string) {
	if why == b.full {
		return
	}
	b.full = why
	if why == "" {
		b.Log.Info("task queue takes tasks again")
		b.tell("STATUS=serves")
	} else {
		b.Log.Error("task queue takes nothing new", "err", why)
		b.tell("STATUS=" + fmt.Sprintf("full: %s", why))
	}
	b.announce()
}

// announce lets clients know how the broker is by now.
func (b *broker) announce() {
	s := &store.State{Full: b.full, Sync: b.sync(), Used: b.engine.used(), Limit: b.limit}
	b.said.Store(s)
	b.engine.announce(s)
}
