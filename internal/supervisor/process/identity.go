package process

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Identity is whom a process runs as. It holds numbers: the databases are asked when a
// generation is made, and not again.
type Identity struct {
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups"` // supplementary ones, all of them
	Name   string `json:"name"`   // of the user; its number where it has no name
	Home   string `json:"home"`
}

// Ours tells whether a process that runs as i is no other user than this one.
func (i *Identity) Ours() bool { return i == nil || i.UID == os.Geteuid() }

// Environment returns env with the variables that login(1) sets as they are for the user.
func (i *Identity) Environment(env []string) []string {
	if i == nil {
		return env
	}
	own := slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		key, _, _ := strings.Cut(e, "=")
		return key == "HOME" || key == "USER" || key == "LOGNAME"
	})
	return append(own, "HOME="+i.Home, "USER="+i.Name, "LOGNAME="+i.Name)
}

// String names the user in messages.
func (i *Identity) String() string {
	if i == nil {
		return "this service's user"
	}
	return i.Name
}

// become makes this process run as i. What it is already it does not ask for: only root may
// set groups. Package syscall changes all threads, package unix one.
func (i *Identity) become() error {
	groups, err := os.Getgroups()
	if err != nil {
		return fmt.Errorf("read the groups of this process: %w", err)
	}
	if !sameGroups(groups, i.Groups) {
		if err := syscall.Setgroups(i.Groups); err != nil {
			return fmt.Errorf("take the groups %v of %s: %w", i.Groups, i, err)
		}
	}
	if os.Getgid() != i.GID || os.Getegid() != i.GID {
		if err := syscall.Setgid(i.GID); err != nil {
			return fmt.Errorf("take group %d of %s: %w", i.GID, i, err)
		}
	}
	if os.Getuid() == i.UID && os.Geteuid() == i.UID {
		return nil
	}
	// A program may open what is its standard output by name (/dev/stderr).
	_ = unix.Fchown(1, i.UID, -1)
	if err := syscall.Setuid(i.UID); err != nil {
		return fmt.Errorf("become user %s: %w", i, err)
	}
	// Who changes its user is made non-dumpable, and its /proc/self/fd, by which the program is
	// executed, root's (proc(5)). Linux 6 lets a process in all the same; nothing promises that.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("open /proc/self to user %s: %w", i, err)
	}
	return nil
}

// sameGroups tells whether a and b are the same in any order.
func sameGroups(a, b []int) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
