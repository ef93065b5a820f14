package lab

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is a way to spend time.
type Kind int

// The three of them.
const (
	Sleep Kind = iota // wait, holding no thread
	Block             // hold a thread in a system call
	Burn              // use a core
)

// look is how often it is asked whether to end early.
const look = 25 * time.Millisecond

// Trace is how the time was spent.
type Trace struct {
	Began, Ended time.Time
	Waited       time.Duration // for something else than a core
	Blocked      bool          // a thread, meanwhile
	Used         time.Duration // of a core
	Slices       []Slice       // of Burn: when it was on a core
}

// Slice is a time on a core.
type Slice struct{ Began, Ended time.Time }

// Took is all of it.
func (t *Trace) Took() time.Duration { return t.Ended.Sub(t.Began) }

// Spend spends d in the way of k, or less if stop returns an error, which it then returns.
func Spend(k Kind, d time.Duration, stop func() error) (Trace, error) {
	t := Trace{Began: time.Now()}
	err := stop()
	if err == nil {
		switch k {
		case Sleep:
			err = t.sleep(d, stop)
		case Block:
			err = t.block(d, stop)
		case Burn:
			err = t.burn(d, stop)
		}
	}
	t.Ended = time.Now()
	if k != Burn {
		t.Waited = t.Took()
	}
	return t, err
}

func (t *Trace) sleep(d time.Duration, stop func() error) error {
	timer := time.NewTimer(min(d, look))
	defer timer.Stop()
	for {
		<-timer.C
		left := d - time.Since(t.Began)
		if left <= 0 {
			return nil
		}
		if err := stop(); err != nil {
			return err
		}
		timer.Reset(min(left, look))
	}
}

func (t *Trace) block(d time.Duration, stop func() error) error {
	t.Blocked = true
	for left := d; left > 0; left = d - time.Since(t.Began) {
		span := unix.NsecToTimespec(int64(min(left, look)))
		if err := unix.Nanosleep(&span, nil); err != nil && err != unix.EINTR { // signals of the runtime cut it short
			return err
		}
		if err := stop(); err != nil {
			return err
		}
	}
	return nil
}

const (
	// turns is how much is computed between two looks at the clocks: some tens of microseconds.
	turns = 20_000
	// gap is from which time on between two such looks the core was somebody else's.
	gap = time.Millisecond
	// mostSlices bounds what is kept of a long one.
	mostSlices = 1000
)

func (t *Trace) burn(d time.Duration, stop func() error) error {
	runtime.LockOSThread() // whose clock is read
	defer runtime.UnlockOSThread()
	begin, err := threadTime()
	if err != nil {
		return err
	}
	at, asked := time.Now(), time.Now()
	t.Slices = append(t.Slices, Slice{at, at})
	for x := uint64(1); ; {
		for range turns {
			x = x*6364136223846793005 + 1442695040888963407 // Knuth's MMIX
		}
		runtime.KeepAlive(x)
		now, err := threadTime()
		if err != nil {
			return err
		}
		t.Used = now - begin
		t.onCore(&at)
		if t.Used >= d {
			return nil
		}
		if at.Sub(asked) >= look {
			asked = at
			if err := stop(); err != nil {
				return err
			}
		}
	}
}

// onCore notes that the thread runs now; last is when it was seen before.
func (t *Trace) onCore(last *time.Time) {
	now := time.Now()
	if now.Sub(*last) > gap && len(t.Slices) < mostSlices {
		t.Slices = append(t.Slices, Slice{now, now})
	}
	t.Slices[len(t.Slices)-1].Ended = now
	*last = now
}

// threadTime is how long this thread has had a core (clock_gettime(2)).
func threadTime() (time.Duration, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	return time.Duration(now.Nano()), err
}
