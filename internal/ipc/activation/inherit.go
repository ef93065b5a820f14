package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

// firstFD is the first inherited descriptor, SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// Inheritance is what a process was started with.
type Inheritance struct {
	Sockets []*Socket
	Extra   map[string]int // by the names in ipc.EnvFDNames
}

// Inherited takes the descriptors that LISTEN_FDS announces to this process, and
// those of ipc.EnvFDNames behind them, marks them close-on-exec and removes the
// variables from the environment, so that no child believes them to be its own.
// Without LISTEN_FDS, or when LISTEN_PID names another process, there are none.
func Inherited() (*Inheritance, error) {
	in := &Inheritance{Extra: map[string]int{}}
	names, extra, err := announced(environment(), os.Getpid())
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		s := &Socket{FD: firstFD + i, Name: name}
		if err := s.adopt(); err != nil {
			return nil, fmt.Errorf("inherited descriptor %d (%s): %w", s.FD, s.Name, err)
		}
		in.Sockets = append(in.Sockets, s)
	}
	for i, name := range extra {
		fd := firstFD + len(names) + i
		unix.CloseOnExec(fd)
		in.Extra[name] = fd
	}
	return in, nil
}

// Given takes all descriptors that LISTEN_FDS announces to this process, whatever they are,
// as Inherited does. A service manager gives those that it was told to keep along with the
// sockets (sd_notify(3), FDSTORE).
func Given() ([]Descriptor, error) {
	env := environment()
	names, _, err := announced(env, os.Getpid())
	if err != nil {
		return nil, err
	}
	var given []Descriptor
	for i, name := range names {
		unix.CloseOnExec(firstFD + i)
		given = append(given, Descriptor{Name: name, FD: firstFD + i})
	}
	return given, nil
}

// Descriptor is one of LISTEN_FDS.
type Descriptor struct {
	Name string
	FD   int
}

// environment takes the variables that announce descriptors out of this process's own.
func environment() map[string]string {
	env := map[string]string{}
	for _, key := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", ipc.EnvFDNames} {
		env[key] = os.Getenv(key)
		os.Unsetenv(key)
	}
	return env
}

// mostSockets bounds LISTEN_FDS, which is somebody else's to write.
const mostSockets = 1 << 16

// announced returns the names of the sockets that env announces to the process pid, and
// those of the descriptors behind them.
func announced(env map[string]string, pid int) (sockets, extra []string, err error) {
	if env["LISTEN_FDS"] == "" || env["LISTEN_PID"] != strconv.Itoa(pid) {
		return nil, nil, nil
	}
	n, err := strconv.Atoi(env["LISTEN_FDS"])
	if err != nil || n < 0 || n > mostSockets {
		return nil, nil, fmt.Errorf("LISTEN_FDS=%q is no number of descriptors", env["LISTEN_FDS"])
	}
	sockets = split(env["LISTEN_FDNAMES"])
	for len(sockets) < n {
		sockets = append(sockets, "unknown") // sd_listen_fds_with_names(3) calls it so
	}
	return sockets[:n], split(env[ipc.EnvFDNames]), nil
}

func split(names string) []string {
	if names == "" {
		return nil
	}
	return strings.Split(names, ":")
}

// Adopt returns the listening socket behind fd, which it takes over, as Inherited does one
// of LISTEN_FDS.
func Adopt(fd int, name string) (*Socket, error) {
	s := &Socket{FD: fd, Name: name}
	if err := s.adopt(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("take listening socket %s: %w", name, err)
	}
	return s, nil
}

// Own makes s, which a process bound that has died, one of Bind's again: Close removes the
// file of a unix socket.
func (s *Socket) Own() {
	var st unix.Stat_t
	if s.Network == "unix" && unix.Lstat(s.Address, &st) == nil {
		s.path, s.dev, s.ino = s.Address, st.Dev, st.Ino
	}
}

// Owned tells whether Close removes a file.
func (s *Socket) Owned() bool { return s.path != "" }

// adopt checks that the descriptor is a listening stream socket and readies it.
func (s *Socket) adopt() error {
	listening, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if kind, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return errors.New("it is no stream socket")
	}
	if listening == 0 {
		return errors.New("it does not listen")
	}
	if err := unix.SetNonblock(s.FD, true); err != nil {
		return err
	}
	unix.CloseOnExec(s.FD)
	if s.Address, err = boundAddress(s.FD); err != nil {
		return err
	}
	s.Network = "tcp"
	if domain, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_UNIX {
		s.Network = "unix"
		return nil
	}
	// As for sockets of our own, see bindTCP. Not worth a failure.
	_ = unix.SetsockoptInt(s.FD, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return nil
}

// Listener returns a net.Listener on the socket and closes FD: the listener has a
// duplicate, and a second registration with epoll would wake the process twice for
// each connection.
func (s *Socket) Listener() (net.Listener, error) {
	f := os.NewFile(uintptr(s.FD), s.Name)
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on inherited descriptor %d (%s): %w", s.FD, s.Name, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path belongs to whoever bound it
	}
	return ln, nil
}
