package anchor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/ipc/scoreboard"
)

// Options are what the main process is told.
type Options struct {
	Program string   // the supervisor's: an absolute path, symbolic links not resolved
	Args    []string // of the supervisor, without its name
	Log     *slog.Logger
}

// Anchor is the main process of one service.
type Anchor struct {
	opts     Options
	log      *slog.Logger
	dir      string // where this process was started, and its supervisors are
	vault    vault
	server   *notify.Server
	client   *notify.Client // the end that supervisors inherit
	upstream *notify.Client // the service manager's; nil: there is none
	lifeline [2]int         // supervisor and workers wait for the end of the first
	events   chan any
	ended    chan struct{}

	child    *child  // the supervisor; nil: none runs
	binary   int     // descriptor of the program that was ready last; -1: none yet
	former   program // the one before it
	ready    bool    // some supervisor has been ready
	stopping bool
	current  string           // path of the program that was ready last
	fallen   bool             // the next supervisor shall return to the generation before
	started  time.Time        // of the latest supervisor
	quick    int              // how many supervisors died young, in a row
	retry    <-chan time.Time // to start the next one
	pending  []syscall.Signal // for a supervisor that has not spoken yet
	pulse    pulse
}

// Run starts the supervisor and returns when the service has ended, with the exit status to
// leave with. An error says why it could not begin.
func Run(o Options) (status int, err error) {
	a := &Anchor{
		opts: o, log: o.Log, lifeline: [2]int{-1, -1}, binary: -1, former: program{fd: -1},
		events: make(chan any, 16), ended: make(chan struct{}), vault: vault{held: map[string]int{}},
	}
	signals := make(chan os.Signal, 32)
	signal.Notify(signals, append([]os.Signal{syscall.SIGCHLD}, forwarded...)...)
	defer signal.Stop(signals)
	defer close(a.ended)
	if err := a.prepare(); err != nil {
		return 0, err
	}
	defer a.release()
	if err := a.start(); err != nil {
		return 0, &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "install preforkd and preforkd-anchor side by side"}
	}
	return a.loop(signals), nil
}

// prepare makes what supervisors inherit and fetch.
func (a *Anchor) prepare() (err error) {
	if a.upstream, err = notify.FromEnvironment(); err != nil {
		a.log.Warn("nobody will hear that this service is ready", "err", err)
	}
	// Orphans of a supervisor, and of workers, become children of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans (prctl(2)): %w", err)
	}
	given, err := activation.Given()
	if err != nil {
		return &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "check the socket unit, or whoever sets LISTEN_FDS"}
	}
	a.vault.store = openStore(a.upstream)
	a.restore(given)
	if a.lifeline[0], a.lifeline[1], err = activation.Lifeline(); err != nil {
		return err
	}
	read, err := activation.Duplicate(a.lifeline[0])
	if err != nil {
		return fmt.Errorf("keep the lifeline: %w", err)
	}
	a.vault.put(ipc.FDLifeline, read)
	if stderr, err := activation.Duplicate(2); err == nil { // else it has none
		a.vault.put(ipc.KeptStderr, stderr)
	}
	server, client, err := notify.Pair()
	if err != nil {
		return err
	}
	if a.client, err = notify.DialFD(client); err != nil {
		return err
	}
	if a.server, err = notify.Serve(server, a.receive); err != nil {
		return err
	}
	if a.dir, err = os.Getwd(); err != nil {
		a.dir = "/"
	}
	return os.Chdir("/") // this process keeps no file system from being unmounted
}

// release gives back what prepare made.
func (a *Anchor) release() {
	_ = a.server.Close()
	_ = a.client.Close()
	_ = a.upstream.Close()
	a.pulse.close()
	a.vault.clear()
	for _, fd := range []int{a.lifeline[0], a.lifeline[1], a.binary, a.former.fd} {
		activation.Close(fd)
	}
}

// loop carries out events until the service has ended, and returns the exit status.
func (a *Anchor) loop(signals <-chan os.Signal) int {
	every := tick
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 63); err == nil && usec > 0 && watched() {
		every = min(every, time.Duration(usec)*time.Microsecond/2)
	}
	os.Unsetenv("WATCHDOG_USEC")
	os.Unsetenv("WATCHDOG_PID")
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGCHLD {
				a.reap()
			} else {
				a.forward(sig.(syscall.Signal))
			}
		case e := <-a.events:
			if status, done := a.handle(e); done {
				return status
			}
		case <-a.retry:
			a.retry = nil
			a.again()
		case now := <-ticker.C:
			_ = a.upstream.Send("WATCHDOG=1")
			a.look(now)
		}
		if a.stopping && a.child == nil { // nobody is there to do it
			return a.finish(ipc.ExitOK)
		}
	}
}

// watched tells whether the service manager's watchdog means this process
// (sd_watchdog_enabled(3)).
func watched() bool {
	pid := os.Getenv("WATCHDOG_PID")
	return pid == "" || pid == strconv.Itoa(os.Getpid())
}

// forwarded are the signals that steer the service; docs/operations.md says what each does.
var forwarded = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU,
}

// forward passes sig on, as soon as there is a supervisor that listens: before that it
// would end it.
func (a *Anchor) forward(sig syscall.Signal) {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
		a.stopping = true
	}
	if a.child == nil || !a.child.spoke {
		a.pending = append(a.pending, sig)
		return
	}
	a.child.signal(sig)
}

// deliver passes on the signals that were held back for a supervisor that listens.
func (a *Anchor) deliver() {
	for _, sig := range a.pending {
		a.child.signal(sig)
	}
	a.pending = nil
}

// messageEvent is a message whose descriptors are in the vault by now.
type messageEvent struct {
	pid      int
	lines    []string
	inCharge bool   // it says that it is: MAINPID
	program  string // and this its program
}

// receive takes a message. It runs in the server's goroutine, so that what comes after a
// STORE finds it done.
func (a *Anchor) receive(m notify.Message) {
	if !a.vault.receive(m, a.log) {
		return
	}
	_, inCharge := m.Get("MAINPID")
	program, _ := m.Get(ipc.KeyProgram)
	select {
	case a.events <- messageEvent{m.PID, relayed(m.Text), inCharge, program}:
	case <-a.ended:
	}
}

// handle carries out e. Done: the service has ended.
func (a *Anchor) handle(e any) (status int, done bool) {
	switch e := e.(type) {
	case messageEvent:
		a.onMessage(e)
	case diedEvent:
		if a.child != nil && e.child == a.child {
			return a.onDied()
		}
	}
	return 0, false
}

// onMessage notes what the supervisor says of itself, and tells it the service manager.
func (a *Anchor) onMessage(e messageEvent) {
	if e.inCharge && a.owner() == e.pid && (a.child == nil || e.pid != a.child.pid) {
		a.follow(e.pid)
	}
	if a.child == nil || e.pid != a.child.pid {
		return // of a supervisor that has died, or is not in charge
	}
	if e.program != "" {
		a.opts.Program = e.program
	}
	a.child.spoke = true
	a.deliver()
	for _, line := range e.lines {
		switch line {
		case "READY=1":
			a.onReady()
		case "STOPPING=1":
			a.stopping = true
		}
	}
	if len(e.lines) > 0 {
		_ = a.upstream.SendWait(e.lines...)
	}
}

// onReady remembers the program that works: whatever lies at its path when it has to be
// started again, it is this one.
func (a *Anchor) onReady() {
	a.ready = true
	a.vault.served()
	if a.child.proven {
		return
	}
	a.child.proven = true
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/exe", a.child.pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		a.log.Warn("program of the supervisor not held", "err", err)
		return
	}
	switch {
	case a.binary < 0:
		a.binary = fd
	case sameFile(a.binary, fd):
		activation.Close(fd)
	default: // an upgrade
		activation.Close(a.former.fd)
		a.former = program{fd: a.binary, path: a.current}
		a.binary = fd
	}
	a.current = a.opts.Program
	a.pulse.open(&a.vault, a.log)
}

// How long the main process waits before it starts a supervisor again. One that lived for
// long is replaced at once.
const (
	young    = time.Minute
	maxRetry = 30 * time.Second
)

// onDied decides what follows the supervisor's end.
func (a *Anchor) onDied() (status int, done bool) {
	gone := a.child
	a.drainMessages()
	if a.child != gone { // another is in charge by now
		return 0, false
	}
	owner := a.owner()
	if owner != 0 && owner != gone.pid && a.follow(owner) { // it could not say so yet
		return 0, false
	}
	a.child = nil
	a.pulse.reset()
	end := gone.status
	if a.stopping || !a.ready {
		return a.finish(exitStatus(end)), true
	}
	if board := a.pulse.board; board != nil {
		board.Owner().CompareAndSwap(uint64(owner), 0) // gone, or one that has died before it was followed
	}
	if time.Since(a.started) > young {
		a.quick = 0
	}
	wait := time.Duration(0)
	if a.quick > 0 {
		wait = min(time.Second<<min(a.quick-1, 10), maxRetry)
	}
	a.quick++
	a.giveUpNewer()
	a.log.Error("supervisor died; the workers serve on", "pid", gone.pid, "exit", describe(end), "next", wait)
	_ = a.upstream.SendWait("STATUS=supervisor died (" + describe(end) + "), starting another; the workers serve on")
	a.retry = time.After(wait)
	return 0, false
}

// program is one that was ready, and its path as the operator means it.
type program struct {
	fd   int // -1: none
	path string
}

// tooQuick is how many deaths within young, in a row, a program may have before the one
// before it is started instead.
const tooQuick = 3

// giveUpNewer goes back to the program before, when the one in charge keeps dying. There is
// no third one to go back to.
func (a *Anchor) giveUpNewer() {
	if a.quick < tooQuick || a.former.fd < 0 {
		return
	}
	a.log.Error("supervisor keeps dying; going on with the program before it", "program", a.opts.Program, "before", a.former.path)
	activation.Close(a.binary)
	a.binary, a.opts.Program, a.quick = a.former.fd, a.former.path, 1
	a.former = program{fd: -1}
	a.fallen = true
}

// drainMessages returns when everything that was sent by now has been handled.
func (a *Anchor) drainMessages() {
	done := make(chan struct{})
	go func() { // ends with the server's answer, or its limit
		defer close(done)
		_ = a.client.Barrier()
	}()
	for {
		select {
		case e := <-a.events:
			if m, ok := e.(messageEvent); ok {
				a.onMessage(m)
			}
		case <-done:
			for len(a.events) > 0 {
				if m, ok := (<-a.events).(messageEvent); ok {
					a.onMessage(m)
				}
			}
			return
		}
	}
}

// again starts the next supervisor.
func (a *Anchor) again() {
	if err := a.start(); err != nil {
		a.log.Error("supervisor not started", "err", err)
		a.quick++
		a.retry = time.After(min(time.Second<<min(a.quick, 10), maxRetry))
	}
}

// exitStatus is the status to leave with after a supervisor that ended so.
func exitStatus(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return fmt.Sprintf("signal %d", s.Signal())
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// strayLimit is how long processes may take that are left when the supervisor has gone.
const strayLimit = 30 * time.Second

// finish ends what is left of the service, and returns status.
func (a *Anchor) finish(status int) int {
	a.vault.clear() // nobody is to wait in the queue of a socket that nobody accepts from
	if a.pulse.board != nil {
		a.pulse.board.Stopping().Store(1)
	}
	deadline := time.Now().Add(strayLimit)
	for told := map[int]bool{}; ; {
		a.reap()
		strays := children()
		if len(strays) == 0 {
			return status
		}
		sig := syscall.SIGTERM
		if time.Now().After(deadline) {
			sig = syscall.SIGKILL
		}
		for _, pid := range strays {
			if sig == syscall.SIGKILL || !told[pid] {
				told[pid] = true
				a.log.Info("process left behind", "pid", pid, "signal", sig.String())
				_ = syscall.Kill(pid, sig) // a child that has not been reaped: the number is its own
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// errNoBoard: the supervisor has stored none.
var errNoBoard = errors.New("no scoreboard is kept")

// owner is the supervisor in charge, by the scoreboard; 0: not known.
func (a *Anchor) owner() int {
	if a.pulse.board == nil {
		return 0
	}
	return int(a.pulse.board.Owner().Load())
}

// openBoard maps the board that is kept.
func openBoard(v *vault) (*scoreboard.Board, error) {
	fd := v.duplicate(ipc.FDBoard)
	if fd < 0 {
		return nil, errNoBoard
	}
	defer activation.Close(fd)
	board, err := scoreboard.OpenSparse(fd)
	if err != nil { // of a later version: how orphans end can then be told to nobody
		return scoreboard.OpenWords(fd)
	}
	return board, nil
}
