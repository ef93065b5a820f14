package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reach is what a process must be able to get at.
type Reach struct {
	Dir   string   `json:"dir"`   // to enter; empty: nothing
	Files []string `json:"files"` // to read
}

// Obstacle is why a process could not be started as a Spec says.
type Obstacle struct {
	Limit string `json:"limit,omitempty"` // the name of one that cannot be set
	Path  string `json:"path,omitempty"`  // what the user cannot enter, read or execute
	What  string `json:"what,omitempty"`  // the whole in words; empty: there is none
}

// Check finds out whether a process could be started as spec says, and could get at reach. A
// child does all that comes before exec, so that it is the kernel that answers. It returns nil if
// nothing is in the way.
func Check(spec Spec, reach Reach) (*Obstacle, error) {
	if !spec.Identity.Ours() && !capable(unix.CAP_KILL) { // what it cannot end it must not start
		return &Obstacle{What: fmt.Sprintf("signal workers of user %s: %v", spec.Identity, unix.EPERM)}, nil
	}
	var lines []string
	spec.Line = func(_ int, l string) { lines = append(lines, l) }
	order := spec.order()
	order.Check = &reach
	p, err := spec.start(order)
	if err != nil {
		return nil, err
	}
	<-p.Done()
	var found Obstacle
	if len(lines) == 0 || json.Unmarshal([]byte(lines[len(lines)-1]), &found) != nil {
		return nil, fmt.Errorf("try to start %s as %s: %s: %s", spec.Path, spec.Identity, p.Exit(), strings.Join(lines, "\n"))
	}
	if found.What == "" {
		return nil, nil
	}
	return &found, nil
}

// MayLook tells whether this process may look at the descriptors of one that runs as i
// (proc_pid_fd(5)).
func (i *Identity) MayLook() bool { return i.Ours() || capable(unix.CAP_SYS_PTRACE) }

// capable tells whether this process has a capability (capabilities(7)).
func capable(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // 32 capabilities each
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return true // not known; the kernel will tell
	}
	return sets[0].Effective&(1<<capability) != 0 // those that are asked for are below 32
}

// check returns, as an error's text, what Check reads.
func (o *stepOrder) check() error {
	text, err := json.Marshal(o.obstacle())
	if err != nil {
		return err
	}
	return errors.New(string(text))
}

func (o *stepOrder) obstacle() Obstacle {
	if err := o.prepare(); err != nil {
		found := Obstacle{What: err.Error()}
		if l := (*LimitError)(nil); errors.As(err, &l) {
			found.Limit = l.Limit.Name
		}
		return found
	}
	in := func(act, path string, err error) Obstacle {
		if errno := syscall.Errno(0); errors.As(err, &errno) { // the path is named already
			err = errno
		}
		return Obstacle{Path: path, What: fmt.Sprintf("%s %s as user %s: %v", act, path, o.Identity, err)}
	}
	if dir := o.Check.Dir; dir != "" {
		if err := unix.Access(dir, unix.X_OK); err != nil {
			return in("enter", dir, err)
		}
	}
	path, err := o.program()
	if err == nil {
		err = unix.Access(path, unix.X_OK)
	}
	if err != nil {
		return in("execute", o.Path, err)
	}
	for _, file := range o.Check.Files {
		f, err := os.Open(file)
		if err != nil {
			return in("read", file, err)
		}
		f.Close()
	}
	return Obstacle{}
}
