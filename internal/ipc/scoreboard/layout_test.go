package scoreboard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
		"outside":           {put(entry(7, 48), 3), "reach beyond"},
		"far outside":       {put(entry(2, 32), 1<<63), "reach beyond"},
		"overflow":          {put(entry(2, 48), 1<<60), "reach beyond"},
		"smaller rows":      {put(entry(1, 40), 448), "needs 512"},
		"fewer histograms":  {put(entry(2, 48), 1), "needs 2"},
		"no rows":           {put(entry(1, 48), 0), "needs 1"},
		"fewer words":       {put(entry(0, 48), 8), "needs 10"},
		"smaller tallies":   {put(entry(4, 40), 0), "no bytes"},
		"smaller layers":    {put(entry(5, 40), 64), "needs 128"},
		"smaller models":    {put(entry(3, 40), 576), "needs 640"},
		"no models":         {put(entry(3, 48), 0), "needs 1"},
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
// version does not know stands between those that it does. It has no models: an earlier
// version has made it.
func TestLaterBoardIsRead(t *testing.T) {
	sections := []section{
		{name: sectionRows, rowBytes: rowBytes + 64, rows: 3},
		{name: "routes", rowBytes: 128, rows: 10},
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
	if _, err := b.ClaimModel(ModelKey{"m", "1", strings.Repeat("0", 64)}); err != ErrNoModelRow || b.Model(1) != nil {
		t.Errorf("%v, %v", b.Model(1), err)
	}
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
		useModels(t, b)
		if r, err := b.Claim(Holder{}); err == nil {
			if _, err := b.Attach(r.Ticket()); err != nil {
				t.Error(err)
			}
		}
		b.Latencies().Quantile(0.99)
		b.Totals()
	})
}

// FuzzTicket: no text makes a process attach to a row that was not claimed for it.
func FuzzTicket(f *testing.F) {
	f.Add("0.1")
	f.Add("1.18446744073709551616")
	f.Add(".")
	f.Add("+0.1")
	whole := image(f, 2)
	f.Fuzz(func(t *testing.T, ticket string) {
		fd := file(t, whole, fixedSize)
		defer unix.Close(fd)
		b, err := Open(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		claimed, err := b.Claim(Holder{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Attach(ticket)
		if err == nil && r == claimed && !sameTicket(ticket, claimed.Ticket()) {
			t.Errorf("%q attached to the row of %q", ticket, claimed.Ticket())
		}
		if err != nil && !strings.Contains(err.Error(), "ticket") {
			t.Error(err)
		}
	})
}

// sameTicket compares by value: zeros may lead.
func sameTicket(a, b string) bool {
	strip := func(s string) string {
		row, serial, _ := strings.Cut(s, ".")
		return strings.TrimLeft(row, "0") + "." + strings.TrimLeft(serial, "0")
	}
	return strip(a) == strip(b)
}
