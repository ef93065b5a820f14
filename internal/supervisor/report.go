package supervisor

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/slot"
)

// outcome tells whether the service has ended, and with what.
func (s *Supervisor) outcome() (done bool, err error) {
	if s.fatal != nil || s.succeeded { // its workers see it end
		return true, s.fatal
	}
	if len(s.byPID) > 0 {
		return false, nil
	}
	defer func() {
		if done && s.stopping == stopNot { // the main process shall not start another
			_ = s.upstream.SendWait("STOPPING=1")
		}
	}()
	if s.stopping != stopNot {
		if s.opts.Main.outlives() {
			s.leaveSums(outliving)
		}
		s.log.Info("stopped", "took", time.Since(s.stopAt).Round(time.Millisecond))
		if s.bootLost {
			return true, s.bootErr
		}
		return true, nil
	}
	if !s.everReady && s.bootErr != nil {
		return true, s.bootErr
	}
	for _, sl := range s.gen.slots() {
		if !sl.failed {
			return false, nil
		}
	}
	return true, s.exhausted()
}

// bootFailed records why w, one of the first workers, ended before any was ready. The
// first worker's own words count; they would repeat themselves.
func (s *Supervisor) bootFailed(w *worker) {
	defer s.giveUp(w.slot.pool)
	of := ""
	if w.slot.pool.name != config.MainPool {
		of = "pool " + w.slot.pool.name + ": "
	}
	switch {
	case s.bootErr != nil:
	case w.failure != nil:
		s.bootErr = w.failure
	case w.reason == slot.Boot:
		s.bootErr = &ipc.Failure{
			Exit: ipc.ExitBoot, Try: "raise timeouts.boot, or see what the worker waits for",
			What: fmt.Sprintf("%sworker not ready within timeouts.boot (%v)%s%s", of, w.slot.pool.clocks.boot, w.lastStatus(), quote(w.tail.lines)),
		}
	default:
		how, try := "could not be started", "run "+w.slot.pool.programs.path+" with the same settings, or see the log"
		if w.proc != nil {
			how = w.exit.String()
		}
		if w.reason == slot.Memory {
			try = "raise the memory limit of this service, or set workers to fewer"
		}
		s.bootErr = &ipc.Failure{
			Exit: ipc.ExitBoot, Try: try,
			What: fmt.Sprintf("%sworker ended before it was ready: %s%s%s", of, how, w.lastStatus(), quote(w.tail.lines)),
		}
	}
}

// giveUp stops the service when p, of which no worker has ever been ready, has none left:
// the first start is a transaction, too.
func (s *Supervisor) giveUp(p *pool) {
	for _, sl := range p.slots {
		if !sl.held {
			return
		}
	}
	if len(s.byPID) > 0 || s.everReady {
		s.bootLost = true
		s.stop(stopQuick, nil)
	}
}

// lastStatus is what w said last that it was doing, such as loading a file that made
// the engine abort.
func (w *worker) lastStatus() string {
	text := ""
	if w.status != "" {
		text = ", while it was " + w.status
	}
	if w.errno != 0 {
		text += fmt.Sprintf("; it reported error %d (%v)", int(w.errno), w.errno)
	}
	return text
}

// exhausted is the failure of a service none of whose slots can keep a worker.
func (s *Supervisor) exhausted() error {
	return &ipc.Failure{
		Exit: ipc.ExitUnavailable,
		What: fmt.Sprintf("no worker can be kept running: each slot crashed more than worker.max_crashes (%d) times in worker.crash_window (%v)%s",
			s.gen.pools[0].policy.MaxCrashes, s.gen.pools[0].policy.CrashWindow, quote(s.last)),
		Try: "read the last worker's lines above; what changed on this machine?",
	}
}

// quote returns a worker's last lines, indented, or nothing.
func quote(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "; its last lines:\n    " + strings.Join(lines, "\n    ")
}

// report tells whoever started the service how it is, and operators once when it
// serves: when every slot has a ready worker or has lost its first one.
func (s *Supervisor) report() {
	if s.stopping != stopNot || !s.inCharge {
		return
	}
	ready, total := 0, 0
	for _, p := range s.gen.pools {
		ready, total = ready+p.count(slot.Ready), total+p.size
	}
	status := fmt.Sprintf("STATUS=%d of %d workers ready%s", ready, total, s.ops.failed)
	if !s.announced && ready > 0 && s.settled() {
		s.announced = true
		s.announce(ready)
		s.status = status
		s.readyToUpgrade()
		_ = s.upstream.SendWait("READY=1", status)
		if s.restored { // the first worker took most of what was left in its pool's queue
			for _, p := range s.gen.pools {
				s.levelOut(p)
			}
		}
		return
	}
	if status != s.status {
		s.status = status
		_ = s.upstream.SendWait(status)
	}
}

// moreTime is what a service manager is asked to wait, again and again, while the service starts
// or stops: its own clocks bound both, and a supervisor that hangs asks for nothing.
const moreTime = 30 * time.Second

// askForTime keeps a service manager from giving up a start or a stop that takes long
// (EXTEND_TIMEOUT_USEC in sd_notify(3)).
func (s *Supervisor) askForTime() {
	if !s.announced || s.stopping != stopNot {
		_ = s.upstream.Send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", moreTime.Microseconds()))
	}
}

// settled tells whether no slot still waits for its first worker.
func (s *Supervisor) settled() bool {
	for _, sl := range s.gen.slots() {
		if w := sl.worker; w != nil && (w.state == slot.Starting || w.state == slot.Loading) && sl.history.Crashes(s.now(), sl.pool.policy) == 0 {
			return false
		}
	}
	return true
}

// announce prints the ready line and a command to try.
func (s *Supervisor) announce(ready int) {
	var urls []string
	for _, sock := range s.gen.sockets {
		urls = append(urls, sock.url())
	}
	var names []string
	for _, m := range s.gen.models {
		names = append(names, m.Name)
	}
	names = slices.Compact(names) // of several versions
	s.log.Info("service ready", "workers", ready, "listen", strings.Join(urls, " "),
		"models", strings.Join(names, ","), "took", s.now().Round(time.Millisecond))
	models := ""
	if len(names) > 0 {
		models = ", models " + strings.Join(names, ", ")
	}
	fmt.Fprintf(s.opts.Out, "preforkd %s ready on %s with %d workers%s\n", s.opts.Version, strings.Join(urls, " "), ready, models)
	fmt.Fprintf(s.opts.Out, "try: %s\n", s.example())
}

func (b *boundSocket) url() string {
	if b.Network == "unix" {
		return "unix:" + b.Address
	}
	return b.scheme() + reachable(b.Address)
}

func (b *boundSocket) scheme() string {
	if b.from.Cert != "" {
		return "https://"
	}
	return "http://"
}

// reachable returns address with the host by which this machine reaches itself.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err == nil && (host == "::" || host == "0.0.0.0") {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

// example is a command that works as it stands: a sample where the model has one, else
// a look at the model.
func (s *Supervisor) example() string {
	base, flag := "", ""
	main := s.gen.pools[0]
	if main.background {
		return "preforkd tasks ls"
	}
	for _, sock := range main.sockets {
		base, flag = sock.url(), ""
		if sock.Network != "tcp" {
			base, flag = sock.scheme()+"localhost", "--unix-socket "+sock.Address+" "
		}
		if sock.from.Cert != "" {
			flag += "-k " // its names are seldom those of this machine
		}
		if sock.from.Proxy {
			flag += "--haproxy-protocol "
		}
		if sock.Network == "tcp" {
			break
		}
	}
	if len(s.gen.door.Tokens[ipc.ClassInfer]) > 0 && !main.other {
		flag += `-H "Authorization: Bearer $TOKEN" `
	}
	if main.other {
		return fmt.Sprintf("curl -s %s%s%s", flag, base, main.cfg.Worker.Probe.Path)
	}
	m := main.models[0]
	for _, other := range main.models {
		if other.Name == main.cfg.Predict.Model {
			m = other
		}
	}
	sample, err := json.Marshal(m.Options.Predict.Sample)
	if err != nil || len(m.Options.Predict.Sample) == 0 {
		return fmt.Sprintf("curl -s %s%s/v2/models/%s", flag, base, m.Name)
	}
	return fmt.Sprintf(`curl -s %s%s/predict -d '{"features":%s}'`, flag, base, sample)
}
