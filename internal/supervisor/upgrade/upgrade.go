package upgrade

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

// sentinel is tableflip's variable (env.go there): it has to leave the environment, or a
// child that uses tableflip as well would take itself for a successor.
const sentinel = "TABLEFLIP_HAS_PARENT_7DIU3"

// channelName is what the channel to the main process is called.
const channelName = "vault"

// Upgrader is a process's part in upgrades.
type Upgrader struct {
	upg    *tableflip.Upgrader
	parent int // pid of the predecessor that waits for this process to be ready; 0: none
}

// New finds out whose successor this process is. It comes before anything that starts a
// process.
func New() (*Upgrader, error) {
	// Its limit kills a child without a word; Upgrade has its own.
	upg, err := tableflip.New(tableflip.Options{UpgradeTimeout: 365 * 24 * time.Hour})
	if err != nil {
		return nil, fmt.Errorf("prepare for upgrades: %w", err)
	}
	os.Unsetenv(sentinel)
	u := &Upgrader{upg: upg}
	if upg.HasParent() {
		u.parent = os.Getppid()
		for fd := 3; fd <= 4; fd++ { // tableflip's own pipes would reach our children
			unix.CloseOnExec(fd)
		}
	}
	return u, nil
}

// Parent is the pid of the predecessor; 0: there is none.
func (u *Upgrader) Parent() int { return u.parent }

// Channel returns the channel to the main process that the predecessor passed on. It is the
// caller's.
func (u *Upgrader) Channel() (fd int, err error) {
	f, err := u.upg.File(channelName)
	if err == nil && f == nil {
		err = errors.New("it was not passed on")
	}
	if err != nil {
		return -1, fmt.Errorf("take over the channel to the main process: %w", err)
	}
	defer f.Close()
	return duplicate(f)
}

func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(controlErr, err)
}

// Carry has successors get another descriptor of channel.
func (u *Upgrader) Carry(channel int) error {
	fd, err := unix.FcntlInt(uintptr(channel), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), channelName)
	defer f.Close() // tableflip has a duplicate
	return u.upg.AddFile(channelName, f)
}

// Ready tells the predecessor, if there is one, that this process is in charge. An error
// says that it could not be told: it has died, and this process is in charge all the same.
func (u *Upgrader) Ready() error { return u.upg.Ready() }

// Left returns when the predecessor has ended.
func (u *Upgrader) Left(ctx context.Context) { _ = u.upg.WaitForParent(ctx) }

// Stop ends an upgrade under way, and those to come. The successor is killed.
func (u *Upgrader) Stop() { u.upg.Stop() }

// Restore makes fd standard error again, in place of the pipe that the predecessor reads
// until this process is in charge.
func Restore(fd int) error { return unix.Dup3(fd, 2, 0) }

// Order is one upgrade.
type Order struct {
	Program string            // absolute path
	Environ []string          // of the successor; nil: ours
	Env     map[string]string // variables that it has beside, or in place of those
	Line    func(line string) // called for each line that it writes to standard error
	Hello   time.Duration     // how long it may take to write the first one
	Limit   time.Duration     // how long it may take to be ready
}

// Errors of Upgrade, which the operator reads.
var (
	errNoHello = errors.New("it said nothing: is it preforkd?")
	errLate    = errors.New("it was not ready in time")
)

// chainLimit is how long a predecessor that has been told may take to end.
const chainLimit = 5 * time.Second

// Upgrade starts the successor and returns nil when that is in charge: this process then
// shall leave. After an error nothing has changed, and the error says how the successor
// ended.
func (u *Upgrader) Upgrade(o Order) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe for what the new program says: %w", err)
	}
	hello := make(chan struct{})
	read := make(chan struct{})
	go func() { // ends with the successor's standard error
		defer close(read)
		lines(r, func(line string) {
			select {
			case <-hello:
			default:
				close(hello)
			}
			o.Line(line)
		})
	}()
	done := make(chan struct{})
	given := make(chan error, 1)
	go func() { given <- o.watch(hello, done) }() // ends with the upgrade
	err = u.start(o, w)
	close(done)
	if why := <-given; err != nil && why != nil {
		err = why
	}
	if err != nil {
		select { // its workers may hold the pipe
		case <-read:
		case <-time.After(time.Second):
		}
		r.Close()
	}
	return err
}

// start calls tableflip, which reads os.Args, os.Stderr and the environment.
func (u *Upgrader) start(o Order, stderr *os.File) error {
	name, old := os.Args[0], os.Stderr
	before := os.Environ()
	if o.Environ != nil {
		setEnviron(o.Environ)
	}
	for k, v := range o.Env {
		os.Setenv(k, v)
	}
	os.Args[0], os.Stderr = o.Program, stderr
	defer func() {
		os.Args[0], os.Stderr = name, old
		setEnviron(before)
		stderr.Close()
	}()
	for deadline := time.Now().Add(chainLimit); ; time.Sleep(10 * time.Millisecond) {
		err := u.upg.Upgrade()
		// The predecessor of this process leaves once it knows that this one is in charge.
		if err == nil || err.Error() != "parent hasn't exited" || time.Now().After(deadline) {
			return err
		}
	}
}

// setEnviron makes environ this process's.
func setEnviron(environ []string) {
	os.Clearenv()
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok {
			_ = os.Setenv(k, v) // what the kernel would not take is not there
		}
	}
}

// watch kills a successor that takes too long, and returns why.
func (o *Order) watch(hello, done <-chan struct{}) error {
	limit, silence := time.After(o.Limit), time.After(o.Hello)
	for {
		select {
		case <-done:
			return nil
		case <-hello:
			hello, silence = nil, nil
		case <-silence:
			killSuccessor()
			return fmt.Errorf("%w (after %v)", errNoHello, o.Hello)
		case <-limit:
			killSuccessor()
			return fmt.Errorf("%w (%v)", errLate, o.Limit)
		}
	}
}

// killSuccessor kills the child that tableflip has started, which does not say its pid: the
// one with its variable.
func killSuccessor() {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for f := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(f)
			env, err2 := os.ReadFile("/proc/" + f + "/environ")
			if err == nil && err2 == nil && strings.Contains("\x00"+string(env), "\x00"+sentinel+"=") {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it has not been reaped: tableflip waits for it
			}
		}
	}
}

// lines calls line for each line of r; one that is very long comes in pieces.
func lines(r io.Reader, line func(string)) {
	b := bufio.NewReaderSize(r, 16<<10)
	for {
		text, _, err := b.ReadLine()
		if err != nil {
			return
		}
		line(strings.ToValidUTF8(string(text), "\uFFFD"))
	}
}

// Find returns the absolute path of the program that name means, symbolic links not
// resolved, and checks that it can be executed.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
