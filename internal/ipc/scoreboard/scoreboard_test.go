package scoreboard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain plays the worker: it attaches to the row of its ticket and adds without end.
func TestMain(m *testing.M) {
	ticket := os.Getenv("SCOREBOARD_TICKET")
	if ticket == "" {
		os.Exit(m.Run())
	}
	b, err := Open(3)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r, err := b.Attach(ticket)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r.InFlight.Add(1)
	r.Ticked.Mark()
	for i := 0; ; i++ {
		r.Requests.Add(1)
		r.Respond(200)
		r.Latency.Observe(time.Millisecond)
		if i == 1000 {
			fmt.Println("running")
		}
	}
}

func board(t testing.TB, rows int) *Board {
	t.Helper()
	b, fd := boardFD(t, rows)
	unix.Close(fd)
	return b
}

func boardFD(t testing.TB, rows int) (*Board, int) {
	t.Helper()
	b, fd, err := Create(rows)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, fd
}

func worker(t *testing.T, fd int, ticket string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(dup), "scoreboard")
	defer f.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SCOREBOARD_TICKET="+ticket)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

func TestCountersOutliveTheirProcess(t *testing.T) {
	b, fd := boardFD(t, 2)
	defer unix.Close(fd)
	r, err := b.Claim(Holder{Pool: 1, Slot: 7, Generation: 3, State: 1})
	if err != nil {
		t.Fatal(err)
	}
	cmd, out := worker(t, fd, r.Ticket())
	if line, err := out.ReadString('\n'); line != "running\n" {
		t.Fatal(line, err)
	}
	if !r.SetPID(cmd.Process.Pid) { // the child was first, and said the same
		t.Errorf("pid %d, want %d", r.PID(), cmd.Process.Pid)
	}
	if age, ok := r.Ticked.Age(); !ok || age > time.Minute {
		t.Errorf("its clock is not ours: %v, %v", age, ok)
	}
	for before := r.Requests.Load(); r.Requests.Load() == before; { // it adds while we read
		time.Sleep(time.Microsecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	n := r.Requests.Load()
	left, ok := r.Settle(cmd.Process.Pid, 7, Exited(cmd.ProcessState.Sys().(syscall.WaitStatus)))
	if !ok || left.InFlight != 1 {
		t.Errorf("settled %v, left %+v", ok, left)
	}
	s, ok := r.Snapshot()
	if !ok || s.Held || s.PID != 0 || s.Pool != 1 || s.Slot != 7 || s.Generation != 3 || s.State != 7 || s.Gauges != (Gauges{}) {
		t.Errorf("%+v", s)
	}
	if status, known := s.Exit.Status(); !known || status.Signal() != syscall.SIGKILL {
		t.Errorf("exit %v", s.Exit)
	}
	if s.Counts.Requests != n || n-s.Counts.Responses[1] > 1 || s.Counts.Exits != 1 {
		t.Errorf("%d requests, %+v", n, s.Counts)
	}
	if b.Latencies().Count() < n-2 || b.Totals() != s.Counts {
		t.Errorf("%d durations, totals %+v", b.Latencies().Count(), b.Totals())
	}

	again, err := b.Claim(Holder{Slot: 2})
	if err != nil || again != r || again.Requests.Load() != n {
		t.Errorf("the next holder begins with %d, %v", again.Requests.Load(), err)
	}
}

// TestLateWorkerIsTurnedAway: the supervisor died between fork and SetPID, its successor
// took the row back and gave it away before the worker came to Attach.
func TestLateWorkerIsTurnedAway(t *testing.T) {
	b, fd := boardFD(t, 1)
	defer unix.Close(fd)
	r, err := b.Claim(Holder{})
	if err != nil {
		t.Fatal(err)
	}
	late := r.Ticket()
	for _, step := range []func(){
		func() {
			if _, ok := r.Settle(0, 7, ExitUnknown); !ok {
				t.Error("the row could not be taken back")
			}
		},
		func() {
			if _, err := b.Claim(Holder{}); err != nil {
				t.Error(err)
			}
		},
	} {
		step()
		cmd, out := worker(t, fd, late)
		line, _ := out.ReadString('\n')
		if err := cmd.Wait(); err == nil || !strings.Contains(line, "row 0") {
			t.Errorf("%q, %v", line, err)
		}
		if r.PID() != 0 || r.Requests.Load() != 0 {
			t.Errorf("it wrote: pid %d", r.PID())
		}
	}
	if r.Exits.Load() != 0 {
		t.Error("an exit without a process")
	}
}

func TestSettleKnowsItsProcess(t *testing.T) {
	b := board(t, 1)
	r, err := b.Claim(Holder{Slot: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Claim(Holder{}); !errors.Is(err, ErrFull) {
		t.Errorf("a second claim of one row: %v", err)
	}
	if r.Claimer() != os.Getpid() {
		t.Errorf("claimed by %d", r.Claimer())
	}
	for _, ticket := range []string{"", "0", "1.1", "0.", "0.9", "-1.1", "a.b", "0.1.2"} {
		if _, err := b.Attach(ticket); err == nil {
			t.Errorf("ticket %q opens a row", ticket)
		}
	}
	if got, err := b.Attach(r.Ticket()); err != nil || got != r || r.PID() != os.Getpid() {
		t.Errorf("%v, pid %d", err, r.PID())
	}
	if r.SetPID(1) {
		t.Error("two processes in a row")
	}
	if _, ok := r.Settle(0, 7, ExitUnknown); ok {
		t.Error("a row was taken back from a process that had attached")
	}

	// A supervisor died in Settle; its successor reads -1 and finishes.
	r.pid.Store(r.claim.Load()&serials | settled)
	if r.PID() != -1 {
		t.Errorf("pid %d", r.PID())
	}
	if _, ok := r.Settle(-1, 6, ExitUnknown); !ok || r.Claimer() != 0 || r.State() != 6 {
		t.Errorf("claimer %d, state %d", r.Claimer(), r.State())
	}
	if _, ok := r.Settle(-1, 7, ExitUnknown); ok || r.PID() != 0 {
		t.Error("a free row was settled")
	}
}

// TestClaimerDies inside Claim, after each of its first steps: a successor takes the row
// back, and the next claim is whole.
func TestClaimerDies(t *testing.T) {
	for steps := range 3 {
		b := board(t, 1)
		r := b.Rows()[0]
		if steps > 1 { // the row had a holder before
			if _, err := b.Claim(Holder{}); err != nil {
				t.Fatal(err)
			}
			r.SetPID(77)
			r.Settle(77, 6, ExitUnknown)
		}
		claim := (r.claim.Load()+oneClaim)&serials | 4711
		r.claim.Store(claim)
		if steps == 1 {
			r.pid.Store(claim & serials)
		}
		if _, ok := r.Snapshot(); ok || r.PID() != 0 || r.Claimer() != 4711 {
			t.Errorf("after %d steps: pid %d, claimer %d", steps, r.PID(), r.Claimer())
		}
		if _, ok := r.Settle(0, 7, ExitUnknown); !ok || r.Claimer() != 0 {
			t.Errorf("after %d steps: the row cannot be taken back", steps)
		}
		if again, err := b.Claim(Holder{Slot: 5}); err != nil || !again.SetPID(78) || again.PID() != 78 {
			t.Errorf("after %d steps: the next claim: %v, pid %d", steps, err, r.PID())
		}
	}
}

// TestClaimsExclude lets two mappings of one file claim and settle at once, as the two
// supervisors of an upgrade do, while a third reads.
func TestClaimsExclude(t *testing.T) {
	b, fd := boardFD(t, 4)
	defer unix.Close(fd)
	other, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var holders [4]struct {
		sync.Mutex
		held bool
	}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, r := range b.Rows() {
				if s, ok := r.Snapshot(); ok && uint64(s.Slot) != s.Generation {
					t.Errorf("slot %d of generation %d never was", s.Slot, s.Generation)
					return
				}
			}
		}
	})
	for i, b := range []*Board{b, other} {
		for range 2 {
			writers.Go(func() {
				for n := range 2_000 {
					r, err := b.Claim(Holder{Slot: 2*n + i, Generation: uint64(2*n + i)})
					if err != nil {
						t.Error(err)
						return
					}
					h := &holders[r.Index()]
					h.Lock()
					if h.held {
						t.Errorf("row %d has two holders", r.Index())
					}
					h.held = true
					h.Unlock()
					r.SetPID(1000 + n)
					r.Requests.Add(1)
					h.Lock()
					h.held = false
					h.Unlock()
					if _, ok := r.Settle(1000+n, 6, ExitUnknown); !ok {
						t.Errorf("row %d was somebody else's", r.Index())
					}
				}
			})
		}
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if got := b.Totals(); got.Requests != 8_000 || got.Exits != 8_000 {
		t.Errorf("%+v", got)
	}
}

func TestWords(t *testing.T) {
	b, fd := boardFD(t, 1)
	defer unix.Close(fd)
	other, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	b.Generation().Store(1)
	b.Committed().Store(2)
	b.Owner().Store(3)
	b.Stopping().Store(4)
	b.Taker().Store(5)
	b.Unready().Store(6)
	b.Heartbeat().Mark()
	got := []uint64{
		other.Generation().Load(), other.Committed().Load(), other.Owner().Load(), other.Stopping().Load(), other.Taker().Load(),
		other.Unready().Load(),
	}
	if !reflect.DeepEqual(got, []uint64{1, 2, 3, 4, 5, 6}) {
		t.Error(got)
	}
	if age, ok := other.Heartbeat().Age(); !ok || age > time.Minute {
		t.Error(age, ok)
	}
	b.Heartbeat().Clear()
	if _, ok := other.Heartbeat().Age(); ok {
		t.Error("a cleared stamp has an age")
	}
}
