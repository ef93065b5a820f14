package scoreboard

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Counter is a number that never falls, whoever holds its row.
type Counter struct{ v atomic.Uint64 }

// Add adds n.
func (c *Counter) Add(n uint64) { c.v.Add(n) }

// Load returns the number.
func (c *Counter) Load() uint64 { return c.v.Load() }

// Gauge is a number that rises and falls, and is zero when its row is settled.
type Gauge struct{ v atomic.Int64 }

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) { g.v.Add(n) }

// Set replaces the number.
func (g *Gauge) Set(n int64) { g.v.Store(n) }

// Load returns the number.
func (g *Gauge) Load() int64 { return g.v.Load() }

// Stamp is a moment by a clock that all processes of the machine share and that nobody
// sets: CLOCK_MONOTONIC (clock_gettime(2)), in nanoseconds. By the time of day, a step
// of the clock would make every worker look hung at once.
type Stamp struct{ v atomic.Uint64 }

// Mark sets the stamp to now, and returns that for Since.
func (s *Stamp) Mark() Moment {
	at := now()
	s.v.Store(at)
	return Moment(at)
}

// Clear sets the stamp to none.
func (s *Stamp) Clear() { s.v.Store(0) }

// Age returns how long ago the stamp was marked, at least 0; false if it is not set.
func (s *Stamp) Age() (time.Duration, bool) {
	at := s.v.Load()
	if at == 0 {
		return 0, false
	}
	return max(time.Duration(now()-at), 0), true
}

// Moment is what a Stamp holds.
type Moment uint64

// Since returns how long ago m was. It is for durations on a path where each look at the clock counts.
func (m Moment) Since() time.Duration { return time.Duration(now() - uint64(m)) }

// origin joins Go's monotonic clock, which is CLOCK_MONOTONIC without its origin, to
// the kernel's: now then needs no system call. The two readings are microseconds apart.
var origin = func() (o struct {
	at time.Time
	ns uint64
},
) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // POSIX clock, in every kernel since 2.6
	}
	o.at, o.ns = time.Now(), uint64(ts.Nano())
	return o
}()

func now() uint64 { return origin.ns + uint64(time.Since(origin.at)) }

// Exit is how the process of a row ended.
type Exit uint64

const (
	// ExitNone: it has not ended, or there never was one.
	ExitNone Exit = 0
	// ExitUnknown: it has ended, and another process reaped it.
	ExitUnknown Exit = 1 << 33

	exitKnown Exit = 1 << 32 // with the wait status in the bits below
)

// Exited is the end that wait4(2) reported.
func Exited(status syscall.WaitStatus) Exit { return exitKnown | Exit(uint32(status)) }

// Status returns what wait4(2) reported; false if nobody knows or nothing has ended.
func (e Exit) Status() (syscall.WaitStatus, bool) {
	return syscall.WaitStatus(uint32(e)), e&exitKnown != 0
}

// String is for tests and logs of ours; operators read the supervisor's words.
func (e Exit) String() string {
	status, known := e.Status()
	switch {
	case !known && e == ExitNone:
		return "none"
	case !known:
		return "unknown"
	case status.Signaled():
		return fmt.Sprintf("signal %d", status.Signal())
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
