package anchor

import (
	"io"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc/notify"
)

// pipe returns a reading end to give away, and tells later whether it is still open.
func pipe(t *testing.T) (fd int, open func() bool) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1]) })
	return p[0], func() bool { // writing fails once nobody can read
		_, err := unix.Write(p[1], []byte{1})
		return err == nil
	}
}

// TestVaultKeepsWhatItIsGiven, once for each name, and closes everything else that comes along:
// also with texts of another version, and with nonsense.
func TestVaultKeepsWhatItIsGiven(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	v := vault{held: map[string]int{}}
	defer v.clear()
	give := func(text string) (open func() bool, more bool) {
		fd, open := pipe(t)
		return open, v.receive(notify.Message{PID: 1, Text: text, Descriptors: []int{fd}}, log)
	}
	first, more := give("FDSTORE=1\nFDNAME=a\nFDPOLL=0\nSOMETHING_NEW=1")
	if !first() || more || len(v.held) != 1 {
		t.Errorf("stored: %v, more %v, %v", first(), more, v.held)
	}
	second, _ := give("FDSTORE=1\nFDNAME=a")
	if first() || !second() || len(v.held) != 1 {
		t.Errorf("replaced: %v, %v, %v", first(), second(), v.held)
	}
	for _, text := range []string{
		"", "FDSTORE=1", "FDNAME=b", "STATUS=with a descriptor", "BARRIER=1", "FDSTORE", "SOMETHING_NEW=1\nFDNAME=c",
		"\x00\xff", "FDSTOREREMOVE=1\nFDNAME=unknown",
	} {
		if open, _ := give(text); open() {
			t.Errorf("%q: its descriptor is held", text)
		}
	}
	if len(v.held) != 1 {
		t.Errorf("%v", v.held)
	}
	if _, more := give("FDSTOREREMOVE=1\nFDNAME=a"); second() || more || len(v.held) != 0 {
		t.Errorf("removed: %v, more %v, %v", second(), more, v.held)
	}
	if v.receive(notify.Message{PID: 1, Text: "FDSTORE=1\nFDNAME=a"}, log); len(v.held) != 0 {
		t.Errorf("nothing was stored: %v", v.held)
	}
}

// FuzzVault: no text makes it hold a descriptor that has no name, or lose one that it was
// given.
func FuzzVault(f *testing.F) {
	for _, text := range []string{"FDSTORE=1\nFDNAME=a", "FETCH=1", "FDSTOREREMOVE=1\nFDNAME=a", "READY=1\nMAINPID=2", "=\n=="} {
		f.Add(text)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	f.Fuzz(func(t *testing.T, text string) {
		v := vault{held: map[string]int{}}
		defer v.clear()
		fd, open := pipe(t)
		m := notify.Message{PID: 1, Text: text, Descriptors: []int{fd}}
		v.receive(m, log)
		name, _ := m.Get("FDNAME")
		if held, ok := v.held[name]; ok != open() || ok && held != fd {
			t.Errorf("%q: held %v, open %v", text, v.held, open())
		}
		relayed(text)
	})
}
