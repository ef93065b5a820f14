package supervisor

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// Helpers are programs that our workers ask, each at a socket of its own. The sockets are files of
// one directory below another that nobody else may enter: our workers, whoever they run as, have
// the inner one as a descriptor. It outlives this process, as its workers do.

// helperDir is that directory.
type helperDir struct {
	path string
	fd   int
}

// isHelper tells whether p's workers are helpers.
func (p *pool) isHelper() bool { return p.cfg.Worker.Kind == config.KindHelper }

// asks tells whether p's workers are ours and may ask helpers.
func (p *pool) asks() bool { return !p.other && len(p.cfg.Helpers) > 0 }

// openHelpers makes the directory of the sockets, or takes over that of the supervisor before this
// one.
func (s *Supervisor) openHelpers() (err error) {
	if s.helpers != nil {
		return nil
	}
	if fd := s.opts.Main.take(ipc.KeptHelpers); fd >= 0 {
		path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if _, gone := os.Stat(path); err == nil && gone == nil {
			s.helpers = &helperDir{path, fd}
			return nil
		}
		activation.Close(fd)
	}
	outer, err := os.MkdirTemp("", "preforkd-")
	if err != nil {
		return fmt.Errorf("make a directory for the sockets of helpers: %w", err)
	}
	d := &helperDir{path: filepath.Join(outer, "helpers")}
	if err = os.Mkdir(d.path, 0o711); err == nil {
		err = os.Chmod(d.path, 0o711) // whatever the umask is
	}
	if err == nil {
		d.fd, err = activation.Directory(d.path)
	}
	if err != nil {
		_ = os.RemoveAll(outer)
		return fmt.Errorf("make a directory for the sockets of helpers: %w", err)
	}
	s.helpers = d
	s.keeper.store(ipc.KeptHelpers, d.fd)
	return nil
}

// openHelpersFor is openHelpers if w asks helpers.
func (s *Supervisor) openHelpersFor(w *worker) error {
	if !w.slot.pool.asks() {
		return nil
	}
	return s.openHelpers()
}

// remove removes the directory with all that is in it.
func (d *helperDir) remove() {
	if d != nil {
		activation.Close(d.fd)
		_ = os.RemoveAll(filepath.Dir(d.path))
	}
}

// openSocket makes the socket of w, a helper, on which it is also probed.
func (s *Supervisor) openSocket(w *worker) (err error) {
	if err := s.openHelpers(); err != nil {
		return err
	}
	p := w.slot.pool
	// By the descriptor, as our workers do: the path itself may be longer than a socket's may be.
	path := fmt.Sprintf("/proc/self/fd/%d/%s", s.helpers.fd, ipc.HelperSocket(p.gen.number, w.row.Ticket(), p.name))
	w.private, err = activation.Bind(activation.Spec{Network: "unix", Address: path, Mode: 0o666})
	return err
}

// leaveSocket leaves the socket to the helper alone: when that has ended, who connects shall hear it.
func (w *worker) leaveSocket() {
	if w.private != nil && w.slot.pool.isHelper() {
		w.private.Part()
	}
}

// proves tells whether a worker of p is to show that its steps fit before it is ready: its
// generation serves nobody yet.
func (s *Supervisor) proves(p *pool) bool {
	return p.asks() && !p.trial && (p.gen != s.gen || !s.proven[p.name])
}

// postpones tells whether w, a helper that shall leave with its whole generation, has to stay: as
// long as workers of that generation have requests in flight they may ask it.
func (s *Supervisor) postpones(w *worker) bool {
	if !w.slot.pool.isHelper() {
		return false
	}
	for _, other := range s.byPID {
		p := other.slot.pool
		if p.asks() && (p.gen == w.slot.pool.gen || s.stopping != stopNot) {
			return true
		}
	}
	return false
}

// withGeneration tells whether what op has decided about sl is about its whole generation.
func (s *Supervisor) withGeneration(op *operation, sl *poolSlot) bool {
	if op.rollout.Committed() {
		return sl.pool.gen == op.old
	}
	return sl.pool.gen == op.next
}

// postpone has w leave like that once nobody asks it any more, and tells whether it has to wait.
func (s *Supervisor) postpone(w *worker, how rollout.Do) bool {
	if w == nil || !s.postpones(w) {
		return false
	}
	w.postponed = how
	return true
}

// letHelpersLeave has those leave that have waited for the last worker that could ask them.
func (s *Supervisor) letHelpersLeave() {
	for _, w := range s.byPID {
		how := w.postponed
		if how == 0 || s.postpones(w) {
			continue
		}
		w.postponed = 0
		if how == rollout.Drain {
			s.apply(w, slot.OnLeave)
		} else {
			s.apply(w, slot.OnQuit)
		}
	}
}

// checkStepModels reports a step of p's routes whose model there is not.
func checkStepModels(p *pool) error {
	for _, path := range slices.Sorted(maps.Keys(p.cfg.Routes)) {
		r := p.cfg.Routes[path]
		for i, text := range r.Steps {
			step, err := config.ParseStep(text)
			has := func(m ipc.ModelFile) bool { return m.Name == step.Name && (step.Sub == "" || m.Version == step.Sub) }
			if err != nil || step.Helper || slices.ContainsFunc(p.models, has) {
				continue
			}
			at := p.key(fmt.Sprintf("routes.%s.steps[%d]", path, i))
			if i < len(r.StepsAt) && r.StepsAt[i] != "" {
				at = r.StepsAt[i] + ": " + at
			}
			var names []string
			for _, m := range p.models {
				names = append(names, m.Name+"/"+m.Version)
			}
			return &ipc.Failure{
				Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: %s is not in %s, which holds %s", at, text, p.cfg.Models.Dir, strings.Join(names, ", ")),
				Try: "name a model that is there",
			}
		}
	}
	return nil
}
