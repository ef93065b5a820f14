package testkit

import (
	"bufio"
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

// Held returns the clients, by their addresses, of the TCP connections to address that pid
// has a descriptor of. Their workers alone know who serves one; but nobody serves what he
// has no descriptor of.
func Held(t testing.TB, pid int, address string) []string {
	t.Helper()
	sockets := Connections(t, address)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	var clients []string
	for _, link := range links {
		name, err := os.Readlink(link)
		if err != nil {
			continue // closed meanwhile
		}
		inode, ok := strings.CutPrefix(name, "socket:[")
		if client := sockets[strings.TrimSuffix(inode, "]")]; ok && client != "" {
			clients = append(clients, client)
		}
	}
	slices.Sort(clients)
	return slices.Compact(clients) // a process may have several descriptors of one
}

// established is TCP_ESTABLISHED, as in /proc/net/tcp (proc_net(5)).
const established = "01"

// Connections returns the clients of the service's ends of all established TCP connections
// to address, by the inode number of the socket. A socket that nobody has a descriptor of
// any more is not among them.
func Connections(t testing.TB, address string) map[string]string {
	t.Helper()
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	clients := map[string]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// sl local_address rem_address st queues timer retrnsmt uid timeout inode …
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != established || f[9] == "0" || endpoint(f[1]) != address {
			continue
		}
		clients[f[9]] = endpoint(f[2])
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return clients
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
