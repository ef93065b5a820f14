package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/supervisor/probe"
	"preforkd/internal/supervisor/process"
	"preforkd/internal/supervisor/slot"
)

// Workers that are not ours: any program that accepts on a socket that it inherits. They
// have a slot, clocks and a crash budget like ours, but no manifest, no control channel and
// no queue of connections; docs/internals/other.md.

// firstFD is the number of the first descriptor beyond standard input, output and error.
const firstFD = 3

// probeName is what a worker's own socket is called in LISTEN_FDNAMES.
const probeName = "probe"

// checkCommand reports a placeholder of p's command that stands for nothing.
func (p *pool) checkCommand() error {
	if !p.other {
		return nil
	}
	known := p.placeholders(0)
	for _, arg := range p.programs.args[1:] {
		for rest := arg; ; {
			_, after, found := strings.Cut(rest, "{fd")
			if !found {
				break
			}
			name, _, closed := strings.Cut(after, "}")
			rest = after
			word := "{fd" + name + "}"
			if closed && (name == "" || name[0] == ':') && !slices.Contains(known, word) {
				return &ipc.Failure{
					Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: %s is no listening socket of pool %s", p.key("worker.command"), word, p.name),
					Try: "set " + p.key("listen") + p.haveSockets(),
				}
			}
		}
	}
	return nil
}

func (p *pool) haveSockets() string {
	if names := p.socketNames(); len(names) > 0 {
		return ", or write {fd:NAME} with one of " + strings.Join(names, ", ")
	}
	return ""
}

// placeholders returns what stands for what in the arguments of p's command, in pairs. The
// socket that a worker is probed on comes after the others.
func (p *pool) placeholders(index int) []string {
	pairs := []string{"{slot}", strconv.Itoa(index), "{probe}", strconv.Itoa(firstFD + len(p.sockets))}
	if p.isHelper() { // whose only socket is its own
		pairs = append(pairs, "{fd}", strconv.Itoa(firstFD))
	}
	for i, sock := range p.sockets {
		fd := strconv.Itoa(firstFD + i)
		if i == 0 {
			pairs = append(pairs, "{fd}", fd)
		}
		pairs = append(pairs, "{fd:"+sock.Name+"}", fd)
	}
	return pairs
}

// prepareOther completes what w is started with.
func (s *Supervisor) prepareOther(w *worker, spec *process.Spec) (err error) {
	p := w.slot.pool
	if spec.Dir, err = filepath.Abs(p.cfg.Worker.Dir); err != nil {
		return err
	}
	replace := strings.NewReplacer(p.placeholders(w.slot.index)...)
	args := slices.Clone(p.programs.args)
	for i := range args[1:] {
		args[i+1] = replace.Replace(args[i+1])
	}
	names, fds := p.socketNames(), p.socketFDs()
	switch {
	case p.isHelper():
		if err := s.openSocket(w); err != nil {
			return err
		}
		names, fds = append(names, ipc.FDHelper), append(fds, w.private.FD)
	case p.cfg.Worker.Probed():
		if err := s.openPrivate(w); err != nil {
			return err
		}
		names, fds = append(names, probeName), append(fds, w.private.FD)
	}
	spec.Args, spec.Descriptors, spec.Group = args, fds, true
	spec.Env = append(inheritable(), s.environment(w, names)...)
	if p.beats() {
		spec.Env = append(spec.Env, watchdog(w))
	}
	return nil
}

// openPrivate makes the socket that w is probed on, in a directory that only this user may
// enter.
func (s *Supervisor) openPrivate(w *worker) (err error) {
	if s.probes == "" {
		if s.probes, err = os.MkdirTemp("", "preforkd-"); err != nil {
			return fmt.Errorf("make a directory for probes: %w", err)
		}
	}
	s.privates++
	path := filepath.Join(s.probes, strconv.Itoa(s.privates))
	w.private, err = activation.Bind(activation.Spec{Network: "unix", Address: path, Mode: 0o600})
	return err
}

// endProbes ends what watch began.
func (w *worker) endProbes() {
	if w.unwatch != nil {
		w.unwatch()
	}
	if w.private != nil {
		_ = w.private.Close()
		w.private = nil
	}
}

// stopSignals are the values of worker.stop_signal.
var stopSignals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
}

// leaveSignal makes a worker of p finish what is in flight and leave.
func (p *pool) leaveSignal() syscall.Signal {
	if !p.other {
		return syscall.SIGTERM
	}
	return stopSignals[p.cfg.Worker.StopSignal]
}

// notifies tells whether p's workers say themselves that they are ready.
func (p *pool) notifies() bool {
	return !p.other || p.cfg.Worker.ReadyBy(p.cfg.Listen) == config.ReadyNotify
}

// beats tells whether p's workers have a heartbeat.
func (p *pool) beats() bool { return !p.other || p.cfg.Worker.LiveBy() == config.LiveWatchdog }

// watchedEvent: what the probes of w, or its clock, have shown.
type watchedEvent struct {
	w      *worker
	ready  bool
	hung   string // why it must be replaced
	status string // what it is waited for
}

// bootProbe is the pause between two probes of a worker that is not ready yet.
const bootProbe = 50 * time.Millisecond

// target returns how w is probed; false: it cannot be.
func (w *worker) target() (t probe.Target, ok bool) {
	c := w.slot.pool.cfg.Worker.Probe
	t = probe.Target{Path: c.Path, Timeout: c.Timeout}
	if w.private != nil {
		t.Network, t.Address = "unix", w.private.Address
		return t, true
	}
	for _, sock := range w.slot.pool.sockets {
		if sock.Network == "tcp" {
			t.Network, t.Address, t.Session = "tcp", reachable(sock.Address), w.proc.PID
			return t, true
		}
	}
	return t, false
}

// watch finds out when w, which has just been started, is ready, and whether it goes on
// working.
func (s *Supervisor) watch(w *worker) {
	s.apply(w, slot.OnHello)
	ctx, cancel := context.WithCancel(s.ctx)
	w.unwatch = cancel
	c := w.slot.pool.cfg
	ready, live := c.Worker.ReadyBy(c.Listen), c.Worker.LiveBy()
	target, ok := w.target()
	go func() { // ends with ctx
		switch ready {
		case config.ReadyDelay:
			if !pause(ctx, c.Worker.ReadyDelay) {
				return
			}
			s.send(watchedEvent{w: w, ready: true})
		case config.ReadyProbe:
			if !ok {
				s.send(watchedEvent{w: w, status: "without an address over TCP to be probed on"})
				return
			}
			if !s.awaitGood(ctx, w, target, c.Worker.Probe.Successes) {
				return
			}
			s.send(watchedEvent{w: w, ready: true})
		}
		if live == config.LiveProbe {
			s.probeOn(ctx, w, target, c.Worker.Probe)
		}
	}()
}

// awaitGood probes w until it has given so many good answers in a row; false: ctx ended.
func (s *Supervisor) awaitGood(ctx context.Context, w *worker, t probe.Target, successes int) bool {
	said := ""
	for good := 0; good < successes; {
		switch err := probe.Ask(ctx, t); {
		case err == nil:
			good++
		case !errors.Is(err, probe.ErrOther):
			good = 0
			if text := "answering its probe: " + err.Error(); text != said && ctx.Err() == nil {
				said = text
				s.send(watchedEvent{w: w, status: text})
			}
		}
		if good < successes && !pause(ctx, bootProbe) {
			return false
		}
	}
	return true
}

// probeOn probes w until ctx ends, and reports when it must be given up. One that is not
// ready yet, or leaves, is the affair of its clocks.
func (s *Supervisor) probeOn(ctx context.Context, w *worker, t probe.Target, c config.Probe) {
	bad := 0
	for pause(ctx, c.Interval) {
		err := probe.Ask(ctx, t)
		if bad++; err == nil {
			bad = 0
		}
		if bad >= c.Failures && ctx.Err() == nil {
			bad = 0
			s.send(watchedEvent{w: w, hung: fmt.Sprintf("no good answer to %d probes in a row: %v", c.Failures, err)})
		}
	}
}

// pause waits for d; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Supervisor) onWatched(e watchedEvent) {
	w := e.w
	switch {
	case w.state.Ended():
	case e.status != "":
		w.status = e.status
	case e.ready:
		s.becomesReady(w)
	case e.hung != "" && w.state == slot.Ready:
		w.reason = slot.Hung
		s.log.Error("worker does not answer its probe", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", w.proc.PID, "err", e.hung)
		s.tellLost(w, e.hung)
		s.apply(w, slot.OnTimeout)
	}
}

// testPause is between two self-tests of a canary that is not ours.
const testPause = 250 * time.Millisecond

// testOther answers for the canary w, which is not ours, whether it is well: by its probe
// if it has one. A worker that cannot be probed has to stay alive.
func (s *Supervisor) testOther(op *operation, pool int, w *worker) {
	t, probed := w.target()
	probed = probed && (w.private != nil || w.slot.pool.cfg.Worker.ReadyBy(w.slot.pool.cfg.Listen) == config.ReadyProbe)
	limit := w.slot.pool.cfg.Timeouts.Request
	go func() { // ends with its event
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		err := errOfProbe(ctx, t, probed)
		if err != nil && w.gone(killClock) {
			return // how it ended says more, and is an event of its own
		}
		if err == nil && !pause(s.ctx, testPause) {
			return
		}
		s.send(testedEvent{op, pool, err})
	}()
}

// errOfProbe asks until the worker itself has answered.
func errOfProbe(ctx context.Context, t probe.Target, probed bool) error {
	for probed {
		switch err := probe.Ask(ctx, t); {
		case !errors.Is(err, probe.ErrOther):
			return err
		case !pause(ctx, bootProbe/5):
			return errors.New("no connection reached the new worker: does it accept on the socket that it inherits?")
		}
	}
	return nil
}
