package testkit

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Freeze stops every thread of pid (SIGSTOP), so that it can be looked at and killed in
// one and the same moment of its life. False: it has ended.
func Freeze(t testing.TB, pid int) bool {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		if err != syscall.ESRCH {
			t.Error(err)
		}
		return false
	}
	stopped := false
	if Await(func() bool {
		states := threads(pid)
		stopped = len(states) > 0 && !slices.ContainsFunc(states, func(s byte) bool { return s != 'T' })
		return stopped || !alive(pid)
	}) != nil {
		t.Errorf("process %d neither stops nor ends: threads %q", pid, threads(pid))
	}
	return stopped
}

// threads returns the state of each thread of pid, as in proc_pid_stat(5).
func threads(pid int) (states []byte) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is well-formed
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		if i := strings.LastIndex(string(data), ") "); i >= 0 && i+2 < len(data) {
			states = append(states, data[i+2])
		}
	}
	return states
}

// Gone waits until pid has ended and was reaped: the kernel has then closed whatever it held.
func Gone(t testing.TB, pid int) {
	t.Helper()
	if Await(func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }) != nil {
		t.Errorf("process %d does not end", pid)
	}
}

// looks is how often a table of the kernel's is read at most. It is read in pieces, and what
// lies behind a socket that comes or goes meanwhile may be passed over.
const looks = 10

// Held returns the TCP connections to address that pid, which is frozen, has a descriptor of:
// the clients' addresses, by the sockets' inode numbers. Who serves a connection only its
// worker knows; but nobody serves one that he has no descriptor of.
func Held(t testing.TB, pid int, address string) map[string]string {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{} // sockets of pid of which nothing is known yet
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil {
			if inode, ok := strings.CutPrefix(name, "socket:["); ok {
				missing[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	clients := map[string]string{}
	for range looks {
		for _, c := range connections(t) {
			if missing[c.inode] && c.state == established && c.server == address {
				clients[c.inode] = c.client
			}
			delete(missing, c.inode)
		}
		for _, line := range table(t, "unix") { // Num: RefCount Protocol Flags Type St Inode Path
			if f := strings.Fields(line); len(f) > 6 {
				delete(missing, f[6])
			}
		}
		if len(missing) == 0 {
			break
		}
	}
	return clients
}

// Connected returns the established TCP connections to address that some process has
// accepted, or that wait in a handoff queue, by the sockets' inode numbers. (An address would
// not do: a client that was reset may be back from the same port at once.)
func Connected(t testing.TB, address string) map[string]bool {
	t.Helper()
	sockets := map[string]bool{}
	for range 3 {
		for _, c := range connections(t) {
			if c.state == established && c.server == address && c.inode != "0" {
				sockets[c.inode] = true
			}
		}
	}
	return sockets
}

// connection is a TCP socket as /proc/net/tcp shows it (proc_net(5)).
type connection struct{ server, client, state, inode string }

// established is TCP_ESTABLISHED.
const established = "01"

func connections(t testing.TB) (all []connection) {
	t.Helper()
	for _, line := range table(t, "tcp") {
		// sl local_address rem_address st queues timer retrnsmt uid timeout inode ...
		if f := strings.Fields(line); len(f) > 9 {
			all = append(all, connection{endpoint(f[1]), endpoint(f[2]), f[3], f[9]})
		}
	}
	return all
}

// table returns the lines of a file of /proc/net.
func table(t testing.TB, name string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/net/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

// endpoint reads an address as /proc/net/tcp has it, 0100007F:1F90: the four bytes as one
// number of the machine's own order. Empty: it is none.
func endpoint(text string) string {
	ip, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(ip, 16, 32)
	n, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil {
		return ""
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(number))
	return net.JoinHostPort(net.IP(b).String(), strconv.FormatUint(n, 10))
}
