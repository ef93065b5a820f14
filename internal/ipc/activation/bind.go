package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

// backlog is the accept queue asked for; the kernel clamps it to net.core.somaxconn
// (listen(2)), 4096 since Linux 5.4.
const backlog = 4096

// Spec says where to listen.
type Spec struct {
	Network string      // "tcp" or "unix"
	Address string      // host:port, or the path of the socket
	Mode    os.FileMode // of a unix socket; 0: what the umask leaves
	Owner   string      // user of a unix socket, a name or a number; empty: unchanged
	Group   string      // likewise
}

// Socket is a listening socket that this process holds.
type Socket struct {
	Name    string // in LISTEN_FDNAMES
	FD      int
	Address string // as bound: with the port that the kernel chose, if it was 0
	Network string // "tcp" or "unix"

	// The unix socket's file, so that Close removes what Bind made and nothing else.
	path     string
	dev, ino uint64
}

// Bind makes a listening socket. The error is an *ipc.Failure: the address is in use
// or not of this machine (69), or may not be used (77).
//
// A unix socket takes over a path whose last owner is gone, and refuses one on which
// somebody still answers.
func Bind(spec Spec) (*Socket, error) {
	if spec.Network == "unix" {
		return bindUnix(spec)
	}
	return bindTCP(spec)
}

func bindTCP(spec Spec) (*Socket, error) {
	addr, err := net.ResolveTCPAddr("tcp", spec.Address)
	if err != nil {
		return nil, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: fmt.Sprintf("listen on %s: %v", spec.Address, err),
			Try: "write an address of this machine, as 127.0.0.1:8000 or [::]:8000", Err: err,
		}
	}
	fd, err := listenTCP(addr)
	if err != nil {
		return nil, listenFailure(spec.Address, addr.Port, err)
	}
	s := &Socket{FD: fd, Network: "tcp"}
	if s.Address, err = boundAddress(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("read the address of %s: %w", spec.Address, err)
	}
	return s, nil
}

func listenTCP(addr *net.TCPAddr) (int, error) {
	family, sa := sockaddr(addr)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil && addr.IP == nil && family == unix.AF_INET6 { // a kernel without IPv6
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: addr.Port}
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return -1, err
	}
	steps := []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) },
		func() error {
			if family != unix.AF_INET6 {
				return nil
			}
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0) // [::] takes IPv4 too
		},
		// Accepted sockets inherit it, also those of programs that do not set it themselves.
		func() error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) },
		func() error { return unix.Bind(fd, sa) },
		func() error { return unix.Listen(fd, backlog) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

func sockaddr(addr *net.TCPAddr) (family int, sa unix.Sockaddr) {
	if ip4 := addr.IP.To4(); ip4 != nil {
		return unix.AF_INET, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(ip4)}
	}
	in6 := &unix.SockaddrInet6{Port: addr.Port}
	if addr.IP != nil {
		in6.Addr = [16]byte(addr.IP.To16())
	}
	if zone, err := net.InterfaceByName(addr.Zone); err == nil {
		in6.ZoneId = uint32(zone.Index)
	}
	return unix.AF_INET6, in6
}

func boundAddress(fd int) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return net.JoinHostPort(net.IP(sa.Addr[:]).String(), strconv.Itoa(sa.Port)), nil
	case *unix.SockaddrInet6:
		return net.JoinHostPort(net.IP(sa.Addr[:]).String(), strconv.Itoa(sa.Port)), nil
	case *unix.SockaddrUnix:
		return sa.Name, nil
	}
	return "", fmt.Errorf("address family %T", sa)
}

func listenFailure(address string, port int, err error) *ipc.Failure {
	f := &ipc.Failure{Exit: ipc.ExitUnavailable, What: fmt.Sprintf("listen on %s: %v", address, err), Err: err}
	switch {
	case errors.Is(err, unix.EADDRINUSE) && port != 0:
		f.Try = fmt.Sprintf("stop the program that listens there (ss -ltnp 'sport = :%d' names it), or set listen to another address", port)
	case errors.Is(err, unix.EADDRINUSE):
		f.Try = "stop the program that listens there, or set listen to another path"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		f.Try = "write an address of this machine (ip addr lists them)"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		f.Exit = ipc.ExitPermission
		f.Try = "choose an address that this user may use"
		switch {
		case port == 0:
			f.Try = "choose a directory that this user may write"
		case port < 1024: // ip_unprivileged_port_start in ip(7)
			f.Try = "choose a port from 1024 on, have a socket unit open it (preforkd.socket, listen: [\"fd:http\"]), or give CAP_NET_BIND_SERVICE"
		}
	case errors.Is(err, unix.ENOENT):
		f.Try = "make the directory, or set listen to another path"
	case port == 0:
		f.Try = "correct the entry in listen"
	}
	return f
}

// bindUnix binds the path itself, so that the socket's own name is the one that
// operators see (ss(8), getsockname(2)). Until listen(2), after mode and owner are
// right, nobody can connect.
func bindUnix(spec Spec) (*Socket, error) {
	if err := takeOver(spec.Address); err != nil {
		return nil, err
	}
	fd, err := listenUnix(spec)
	if err != nil {
		return nil, listenFailure("unix:"+spec.Address, 0, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(spec.Address, &st); err != nil {
		unix.Close(fd)
		return nil, listenFailure("unix:"+spec.Address, 0, err)
	}
	return &Socket{FD: fd, Network: "unix", Address: spec.Address, path: spec.Address, dev: st.Dev, ino: st.Ino}, nil
}

func listenUnix(spec Spec) (int, error) {
	path := spec.Address
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if spec.Mode != 0 {
		err = os.Chmod(path, spec.Mode)
	}
	if err == nil && spec.Owner+spec.Group != "" {
		err = chown(path, spec.Owner, spec.Group)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		os.Remove(path)
		return -1, err
	}
	return fd, nil
}

// takeOver makes path free: it removes a socket on which nobody listens any more, and
// refuses anything else.
func takeOver(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return listenFailure("unix:"+path, 0, err)
	}
	if st.Mode().Type() != os.ModeSocket {
		return &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: fmt.Sprintf("listen on unix:%s: it exists and is no socket", path),
			Try: "remove it, or set listen to another path",
		}
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return listenFailure("unix:"+path, 0, unix.EADDRINUSE)
	}
	if errors.Is(err, unix.EAGAIN) { // alive, its accept queue is full
		return listenFailure("unix:"+path, 0, unix.EADDRINUSE)
	}
	if errors.Is(err, unix.EACCES) {
		return listenFailure("unix:"+path, 0, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return listenFailure("unix:"+path, 0, err)
	}
	return nil
}

func chown(path, owner, group string) error {
	uid, gid := -1, -1
	if owner != "" {
		u, err := user.Lookup(owner)
		if err != nil {
			if u, err = user.LookupId(owner); err != nil {
				return fmt.Errorf("owner %q: no such user", owner)
			}
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return err
		}
	}
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			if g, err = user.LookupGroupId(group); err != nil {
				return fmt.Errorf("owner %q: no such group", group)
			}
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return err
		}
	}
	return os.Chown(path, uid, gid)
}

// Close closes the socket and removes the file of a unix socket, if it is still the
// one that Bind made.
func (s *Socket) Close() error {
	if s.path != "" {
		var st unix.Stat_t
		if unix.Lstat(s.path, &st) == nil && st.Dev == s.dev && st.Ino == s.ino {
			os.Remove(s.path)
		}
	}
	if s.FD < 0 {
		return nil
	}
	return unix.Close(s.FD)
}

// Part closes the socket here, and leaves the file and whoever else has the socket: when the last
// of those has ended, who connects is refused. Close removes the file.
func (s *Socket) Part() {
	Close(s.FD)
	s.FD = -1
}
