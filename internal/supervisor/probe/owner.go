package probe

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// lookEvery is the pause between two looks at who has accepted a connection.
const lookEvery = 2 * time.Millisecond

// accepted waits until a process has accepted conn, and tells whether it is one of
// session. Without /proc nobody has.
func accepted(ctx context.Context, conn net.Conn, session int) bool {
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return false
	}
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return false
	}
	for {
		if inode := inodeOf(remote, local); inode != "" {
			for _, pid := range processes(session) {
				if holds(pid, inode) {
					return true
				}
			}
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(lookEvery):
		}
	}
}

// inodeOf returns the inode of the socket that has these two addresses, empty while there
// is none: the kernel makes it when the connection is accepted (proc_net_tcp in the
// kernel's documentation).
func inodeOf(local, remote netip.AddrPort) string {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	if local.Addr().Is4() {
		if inode := find("/proc/net/tcp", hex(local, false), hex(remote, false)); inode != "" {
			return inode
		}
	}
	return find("/proc/net/tcp6", hex(local, true), hex(remote, true)) // also of IPv4, where [::] listens
}

// hex returns a as /proc/net has it: the address in words of the machine's byte order,
// which is little-endian on all that we run on, and the port.
func hex(a netip.AddrPort, long bool) string {
	bytes := a.Addr().AsSlice()
	if long {
		as16 := a.Addr().As16()
		bytes = as16[:]
	}
	var b strings.Builder
	for word := 0; word < len(bytes); word += 4 {
		fmt.Fprintf(&b, "%02X%02X%02X%02X", bytes[word+3], bytes[word+2], bytes[word+1], bytes[word])
	}
	fmt.Fprintf(&b, ":%04X", a.Port())
	return b.String()
}

// find returns the inode in the line of file with these addresses; empty for none.
func find(file, local, remote string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !bytes.Contains(lines.Bytes(), []byte(remote)) {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[1] == local && fields[2] == remote && fields[9] != "0" {
			return fields[9]
		}
	}
	return ""
}

// processes returns those of a session, its leader first.
func processes(session int) []int {
	pids := []int{session}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return pids
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == session {
			continue
		}
		if sessionOf(pid) == session {
			pids = append(pids, pid)
		}
	}
	return pids
}

// sessionOf returns the session of a process, 0 if it is gone; proc_pid_stat(5).
func sessionOf(pid int) int {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	end := bytes.LastIndexByte(data, ')') // the name before it may hold anything
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 4 {
		return 0
	}
	session, _ := strconv.Atoi(fields[3])
	return session
}

// holds tells whether a process has the socket open.
func holds(pid int, inode string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
