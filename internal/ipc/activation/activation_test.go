package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

// TestMain plays the child that inherits: it reports what it got.
func TestMain(m *testing.M) {
	if os.Getenv("ACTIVATION_CHILD") == "" {
		os.Exit(m.Run())
	}
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // what the exec step does
	in, err := Inherited()
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(0)
	}
	for _, s := range in.Sockets {
		ln, err := s.Listener()
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(0)
		}
		fmt.Println(s.Name, s.Network, s.Address, ln.Addr())
	}
	if fd, ok := in.Extra[ipc.FDManifest]; ok {
		data, err := ReadSealed(fd)
		fmt.Println("manifest", string(data), err)
	}
	for _, key := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", ipc.EnvFDNames} {
		if os.Getenv(key) != "" {
			fmt.Println("error:", key, "is left")
		}
	}
	os.Exit(0)
}

func child(t *testing.T, env []string, fds ...int) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "ACTIVATION_CHILD=1"), env...)
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "inherited")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func bind(t *testing.T, spec Spec) *Socket {
	t.Helper()
	s, err := Bind(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestChildInherits(t *testing.T) {
	tcp := bind(t, Spec{Network: "tcp", Address: "127.0.0.1:0"})
	path := filepath.Join(t.TempDir(), "s")
	local := bind(t, Spec{Network: "unix", Address: path})
	manifest, err := Sealed("manifest", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(manifest)
	env := []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=http:local", ipc.EnvFDNames + "=manifest"}
	want := fmt.Sprintf("http tcp %s %s\nlocal unix %s %s\nmanifest {} <nil>\n", tcp.Address, tcp.Address, path, path)
	for range 2 { // the second child reads the same descriptor from its beginning, too
		if got := child(t, env, tcp.FD, local.FD, manifest); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
}

func TestBadInheritanceIsNamed(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := child(t, []string{"LISTEN_FDS=1"}, int(f.Fd())); !strings.HasPrefix(got, "error: inherited descriptor 3 (unknown): ") {
		t.Errorf("%q", got)
	}
	if got := child(t, []string{"LISTEN_FDS=-1"}); !strings.Contains(got, `LISTEN_FDS="-1"`) {
		t.Errorf("%q", got)
	}
	if got := child(t, nil); got != "" {
		t.Errorf("without LISTEN_FDS: %q", got)
	}
}

func TestSealedCannotChange(t *testing.T) {
	data := strings.Repeat("x", 100_000)
	fd, err := Sealed("test", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, []byte("y"), 0); err == nil {
		t.Error("it was written")
	}
	if err := unix.Ftruncate(fd, 1); err == nil {
		t.Error("it was truncated")
	}
	if got, err := ReadSealed(fd); err != nil || string(got) != data {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestLifelineEndsWithItsOwner(t *testing.T) {
	r, w, err := Lifeline()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		AwaitEnd(r)
		close(ended)
	}()
	select {
	case <-ended:
		t.Fatal("it ended before its owner did")
	default:
	}
	unix.Close(w)
	<-ended
}

// TestSharedSocketStaysNonBlocking: whoever makes it blocking freezes the others.
func TestSharedSocketStaysNonBlocking(t *testing.T) {
	s := bind(t, Spec{Network: "tcp", Address: "127.0.0.1:0"})
	child(t, []string{"LISTEN_FDS=1"}, s.FD)
	flags, err := unix.FcntlInt(uintptr(s.FD), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func TestAddressInUse(t *testing.T) {
	s := bind(t, Spec{Network: "tcp", Address: "127.0.0.1:0"})
	_, err := Bind(Spec{Network: "tcp", Address: s.Address})
	checkFailure(t, err, ipc.ExitUnavailable, s.Address)
	_, err = Bind(Spec{Network: "tcp", Address: "192.0.2.1:0"}) // TEST-NET-1, of no machine (RFC 5737)
	checkFailure(t, err, ipc.ExitUnavailable, "192.0.2.1:0")
}

func checkFailure(t *testing.T, err error, exit int, names string) {
	t.Helper()
	var f *ipc.Failure
	if !errors.As(err, &f) || f.Exit != exit || !strings.Contains(f.What, names) || f.Try == "" {
		t.Errorf("%#v; want exit %d naming %s and what to try", err, exit, names)
	}
}

func TestWildcardTakesBothFamilies(t *testing.T) {
	s := bind(t, Spec{Network: "tcp", Address: ":0"})
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil && host == "::1" {
			t.Skipf("skipped for IPv6: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestUnixSocketTakeover(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")

	live, err := Bind(Spec{Network: "unix", Address: path, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	_, err = Bind(Spec{Network: "unix", Address: path})
	checkFailure(t, err, ipc.ExitUnavailable, path)

	// Somebody removed the file and bound another: Close leaves that one alone. (Our own
	// open socket keeps its inode number from being given out again.)
	os.Remove(path)
	other := bind(t, Spec{Network: "unix", Address: path})
	live.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("a socket removed another one's file")
	}
	c.Close()

	unix.Close(other.FD) // as kill -9 leaves it: the file, and nobody behind
	other.FD = -1
	fresh, err := Bind(Spec{Network: "unix", Address: path})
	if err != nil {
		t.Fatal(err)
	}
	if c, err = net.Dial("unix", path); err != nil {
		t.Fatal(err)
	}
	c.Close()
	fresh.Close()
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestUnixSocketRefusals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Bind(Spec{Network: "unix", Address: file})
	checkFailure(t, err, ipc.ExitUnavailable, file)
	_, err = Bind(Spec{Network: "unix", Address: filepath.Join(dir, "none", "s")})
	checkFailure(t, err, ipc.ExitUnavailable, "none")
	_, err = Bind(Spec{Network: "unix", Address: filepath.Join(dir, "s"), Owner: "nobody-of-this-name"})
	checkFailure(t, err, ipc.ExitUnavailable, "nobody-of-this-name")
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}
