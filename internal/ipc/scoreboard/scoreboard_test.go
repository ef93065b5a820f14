package scoreboard

import (
	"bufio"
	"bytes"
	"encoding/binary"
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
	b.Heartbeat().Mark()
	got := []uint64{
		other.Generation().Load(), other.Committed().Load(), other.Owner().Load(), other.Stopping().Load(), other.Taker().Load(),
	}
	if !reflect.DeepEqual(got, []uint64{1, 2, 3, 4, 5}) {
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

// TestEveryCounterIsSummed finds a counter that Counts or Add forgot.
func TestEveryCounterIsSummed(t *testing.T) {
	var f Fields
	fields, n := reflect.ValueOf(&f).Elem(), 0
	for i := range fields.NumField() {
		if !fields.Type().Field(i).IsExported() {
			continue
		}
		switch c := fields.Field(i).Addr().Interface().(type) {
		case *Counter:
			c.Add(1)
			n++
		case *[5]Counter:
			for i := range c {
				c[i].Add(1)
				n++
			}
		}
	}
	sum := f.Counts()
	sum.Add(f.Counts())
	flat := fmt.Sprint(sum)
	if got := strings.Count(flat, "2"); got != n || strings.ContainsAny(flat, "01") {
		t.Errorf("%d counters, sums %s", n, flat)
	}
}

func TestRespond(t *testing.T) {
	var f Fields
	for _, status := range []int{100, 200, 204, 301, 404, 599, 0, -1, 99, 600, 1 << 40} {
		f.Respond(status)
	}
	if got := f.Counts().Responses; got != [5]uint64{1, 2, 1, 1, 6} {
		t.Error(got)
	}
}

func TestExitInWords(t *testing.T) {
	for e, want := range map[Exit]string{
		ExitNone: "none", ExitUnknown: "unknown", Exited(0): "exit status 0",
		Exited(3 << 8): "exit status 3", Exited(9): "signal 9",
	} {
		if e.String() != want {
			t.Errorf("%q, want %q", e, want)
		}
	}
}

// image returns the bytes of a fresh board.
func image(t testing.TB, rows int) []byte {
	b := board(t, rows)
	return bytes.Clone(b.mem)
}

// file returns a memory file with data, sealed as a board's is.
func file(t testing.TB, data []byte, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 {
		if _, err := unix.Pwrite(fd, data, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

const fixedSize = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

func TestOpenRefuses(t *testing.T) {
	entry := func(i, at int) int { return tableOffset + i*entryBytes + at }
	put := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.NativeEndian.PutUint64(b[at:], v); return b }
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"empty":             {func([]byte) []byte { return nil }, "0 bytes"},
		"cut":               {func(b []byte) []byte { return b[:len(b)-64] }, "its header says"},
		"other file":        {func(b []byte) []byte { b[0] = 'x'; return b }, "it begins with"},
		"later layout":      {func(b []byte) []byte { b[8] = 2; return b }, "version 2"},
		"many sections":     {func(b []byte) []byte { b[13] = 1; return b }, "do not fit"},
		"missing section":   {func(b []byte) []byte { b[12] = 2; return b }, "no section latency"},
		"nameless":          {func(b []byte) []byte { b[entry(1, 0)] = 0; return b }, "its name is"},
		"unreadable name":   {func(b []byte) []byte { b[entry(1, 0)] = 27; return b }, "its name is"},
		"name twice":        {func(b []byte) []byte { copy(b[entry(1, 0):], "words\x00"); return b }, "its name is|two sections"},
		"misaligned":        {put(entry(1, 32), headerBytes+8), "no multiple"},
		"odd rows":          {put(entry(1, 40), 520), "no multiple"},
		"rows of nothing":   {put(entry(1, 40), 0), "no bytes"},
		"in the header":     {put(entry(0, 32), 64), "inside the header"},
		"overlap":           {put(entry(1, 32), headerBytes), "overlap"},
		"outside":           {put(entry(2, 48), 3), "reach beyond"},
		"far outside":       {put(entry(2, 32), 1<<63), "reach beyond"},
		"overflow":          {put(entry(2, 48), 1<<60), "reach beyond"},
		"smaller rows":      {put(entry(1, 40), 448), "needs 512"},
		"fewer histograms":  {put(entry(2, 48), 1), "needs 2"},
		"no rows":           {put(entry(1, 48), 0), "needs 1"},
		"fewer words":       {put(entry(0, 48), 5), "needs 6"},
		"smaller histogram": {put(entry(2, 40), 3520), "needs 3584"},
	} {
		t.Run(name, func(t *testing.T) {
			fd := file(t, c.change(image(t, 2)), fixedSize)
			defer unix.Close(fd)
			b, err := Open(fd)
			if err == nil {
				b.Close()
				t.Fatal("it was accepted")
			}
			first, second, _ := strings.Cut(c.want, "|")
			if !strings.Contains(err.Error(), first) && (second == "" || !strings.Contains(err.Error(), second)) {
				t.Error(err)
			}
		})
	}
	fd := file(t, image(t, 1), 0)
	defer unix.Close(fd)
	if _, err := Open(fd); err == nil || !strings.Contains(err.Error(), "may shrink") {
		t.Error(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := Open(int(null.Fd())); err == nil {
		t.Error("/dev/null is a scoreboard")
	}
	if _, err := Open(-1); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}

// TestLaterBoardIsRead: rows are longer, there are more words, and a section that this
// version does not know stands between those that it does.
func TestLaterBoardIsRead(t *testing.T) {
	sections := []section{
		{name: sectionRows, rowBytes: rowBytes + 64, rows: 3},
		{name: "models", rowBytes: 128, rows: 10},
		{name: "empty", rowBytes: 64},
		{name: sectionLatency, rowBytes: histogramBytes + 128, rows: 5},
		{name: sectionWords, rowBytes: 128, rows: 40},
	}
	size := uint64(headerBytes)
	for i := range sections {
		sections[i].offset = size
		size = sections[i].end()
	}
	data := make([]byte, size)
	writeHeader(data, sections)
	fd := file(t, data, fixedSize)
	defer unix.Close(fd)
	b, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r := b.Rows()[2]
	r.Requests.Add(5)
	r.Latency.Observe(time.Hour)
	b.Taker().Store(9)
	for at, want := range map[uint64]uint64{
		sections[0].offset + 2*(rowBytes+64) + 3*64:                5,
		sections[3].offset + 2*(histogramBytes+128) + 64 + 8*433:   1,
		sections[4].offset + wordTaker*128:                         9,
		sections[3].offset + 2*(histogramBytes+128) + 64 + 8*432:   0,
		sections[0].offset + 2*(rowBytes+64) + 3*64 + 8*rowBytes/8: 0,
	} {
		if got := binary.NativeEndian.Uint64(b.mem[at:]); got != want {
			t.Errorf("at %d: %d, want %d", at, got, want)
		}
	}
}

func TestCreate(t *testing.T) {
	for _, rows := range []int{-1, 0, maxRows + 1} {
		if _, _, err := Create(rows); err == nil {
			t.Errorf("a board of %d rows", rows)
		}
	}
	b, fd := boardFD(t, 3)
	defer unix.Close(fd)
	if len(b.Rows()) != 3 || b.Totals() != (Counts{}) {
		t.Errorf("%d rows, %+v", len(b.Rows()), b.Totals())
	}
	if _, ok := b.Rows()[0].Snapshot(); ok {
		t.Error("a row that nobody held has a holder")
	}
	if err := unix.Ftruncate(fd, 0); err == nil {
		t.Error("it could be emptied")
	}
	if err := unix.Ftruncate(fd, 1<<20); err == nil {
		t.Error("it could grow")
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// FuzzOpen writes the input over the header of a board, or takes it for the whole file,
// and uses every row of what is accepted.
func FuzzOpen(f *testing.F) {
	whole := image(f, 2)
	f.Add(whole[:headerBytes], true)
	f.Add(whole[:headerBytes], false)
	f.Add(whole, false)
	f.Add([]byte(magic), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, patch bool) {
		if patch {
			data = append(bytes.Clone(data), whole[min(len(data), len(whole)):]...)
		}
		fd := file(t, data, fixedSize)
		defer unix.Close(fd)
		b, err := Open(fd)
		if err != nil {
			if b != nil || !strings.HasPrefix(err.Error(), "open the scoreboard: ") {
				t.Fatalf("%v, %v", b, err)
			}
			return
		}
		defer b.Close()
		b.Taker().Add(1)
		b.Heartbeat().Mark()
		for _, r := range b.Rows() {
			r.Exits.Add(1)
			r.Latency.Observe(time.Hour)
			r.Snapshot()
			if pid := r.PID(); r.Claimer() != 0 {
				r.Settle(pid, 0, ExitUnknown)
			}
		}
		if r, err := b.Claim(Holder{}); err == nil {
			if _, err := b.Attach(r.Ticket()); err != nil {
				t.Error(err)
			}
		}
		b.Latencies().Quantile(0.99)
		b.Totals()
	})
}
