package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/process"
)

// A model is prepared before the first worker loads it, by a process of its own that ends with
// it: docs/internals/prepared.md. Whatever goes wrong costs memory, never the service.

// preparedFrom is the size of a model from which on its weights are worth sharing: below, all
// workers together save less than the process that prepares takes for a moment, and the start
// waits for it.
const preparedFrom = 1 << 20

// prepareModels completes models, which p has, by what was prepared of them, and has l keep
// that. Those of which nothing could be are loaded from their copies. It may run beside the loop.
func (s *Supervisor) prepareModels(p *pool, models []ipc.ModelFile, l *cache.Lease) {
	var worth []*ipc.ModelFile
	for i := range models {
		m := &models[i]
		m.Prepared, m.Shared = "", 0
		if p.prepares(m) {
			worth = append(worth, m)
		}
	}
	if len(worth) == 0 {
		return
	}
	// Who stops the service while it starts need not wait; the loop hears of it, too.
	ctx, end := signal.NotifyContext(s.ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer end()
	preparer, err := s.preparer(p)
	for _, m := range worth {
		began := time.Now()
		made := false
		if preparer != nil {
			if !s.inCharge { // a service manager waits for the start
				_ = s.upstream.Send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (p.clocks.boot + moreTime).Microseconds()))
			}
			made, err = preparer.Prepare(ctx, m, l)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("model not prepared: each worker has its weights to itself", "pool", p.name, "model", m.Name, "version", m.Version,
				"bytes", m.Bytes, "workers", s.workersOf(p), "err", err)
		case made:
			s.log.Info("model prepared", "pool", p.name, "model", m.Name, "version", m.Version, "shared", m.Shared, "took", time.Since(began).Round(time.Millisecond))
		}
	}
}

// prepares tells whether m is to be prepared.
func (p *pool) prepares(m *ipc.ModelFile) bool {
	switch {
	case p.other, p.cfg.Inference.Prepare == config.PrepareOff:
		return false
	case p.cfg.Inference.Prepare == config.PrepareAlways:
		return true
	}
	return m.Bytes >= preparedFrom
}

// workersOf is how many workers p has, or is about to have as far as that is known.
func (s *Supervisor) workersOf(p *pool) int {
	switch {
	case p.size > 0:
		return p.size
	case !p.cfg.Workers.Auto():
		return int(p.cfg.Workers)
	}
	return max(int(s.room(p).Cores), 1)
}

// preparer prepares models for the workers of p.
func (s *Supervisor) preparer(p *pool) (*cache.Preparer, error) {
	if p.programs.engine == nil {
		return nil, fmt.Errorf("the engine's library %s is found by the dynamic loader alone: set inference.library to its path", p.programs.library)
	}
	recipe, err := cache.NewRecipe(p.programs.engine, p.cfg.Inference.CustomOps)
	if err != nil {
		return nil, err
	}
	preparer := &cache.Preparer{
		Cache: p.cfg.Cache.Dir, Readable: p.gen.hasOthers(), Recipe: recipe, Graph: ipc.PreparedGraph,
		Run: func(ctx context.Context, source, dir string) error { return s.runPreparer(ctx, p, source, dir) },
	}
	if !p.identity.Ours() {
		preparer.Take = func(dir string) error { return os.Chown(dir, p.identity.UID, p.identity.GID) }
	}
	return preparer, nil
}

// runPreparer starts a process that prepares the model at source into dir, as a worker of p
// would be started but with less of everything, and waits for its end.
func (s *Supervisor) runPreparer(ctx context.Context, p *pool, source, dir string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.clocks.boot, fmt.Errorf("it took longer than timeouts.boot, %s", p.clocks.boot))
	defer cancel()
	spec := process.Spec{Path: p.programs.path, Executable: p.programs.worker, Descriptors: []int{int(p.programs.engine.Fd())}, Identity: p.identity, Group: true}
	if !p.programs.own { // a script would not know what it is asked for
		path, _, err := workerCommand(p.key("worker.command"), nil)
		if err != nil {
			return err
		}
		spec.Path, spec.Executable = path, nil
	}
	const first = 3 // of Descriptors
	spec.Args = []string{"preforkd-worker", ipc.PrepareCommand, "-library", fmt.Sprintf("/proc/self/fd/%d", first), "-library-name", p.programs.library}
	for _, path := range p.cfg.Inference.CustomOps {
		spec.Args = append(spec.Args, "-custom-ops", path)
	}
	spec.Args = append(spec.Args, source, dir)
	spec.Env = p.identity.Environment(inheritable())
	alone := *p
	alone.trial = true
	spec.Limits = s.limits(&alone)
	var said tail // one goroutine writes it, until the process has ended
	spec.Line = func(_ int, line string) { said.add(line) }
	proc, err := process.Start(spec)
	if err != nil {
		return err
	}
	kills := oomKillsFrom(proc.PID)
	select {
	case <-proc.Done():
	case <-ctx.Done():
		proc.Signal(syscall.SIGKILL)
		<-proc.Done()
		return context.Cause(ctx)
	}
	exit := proc.Exit()
	if exit.OOM = exit.Killed() && kills(); exit.OOM {
		return errors.New(said.why(exit.String()) + "; raise the memory limit, or have it prepared before by preforkd models prepare")
	}
	if exit.Status != 0 {
		return errors.New(said.why(exit.String()))
	}
	return nil
}

// oomKillsFrom looks at the memory cgroup of process pid now and returns what tells whether the
// kernel has killed there since. Where nobody counts nothing is put down to memory.
func oomKillsFrom(pid int) func() bool {
	var oom machine.OOM
	file, err := oom.Counter(pid)
	if err != nil {
		return func() bool { return false }
	}
	before, err := oom.Kills(file)
	return func() bool {
		now, wrong := oom.Kills(file)
		return err == nil && wrong == nil && now > before
	}
}

// why is what a process that has ended so said of it, in one line.
func (t *tail) why(exit string) string {
	if t.fault != "" {
		return exit + ": " + t.fault
	}
	var said []string
	for _, line := range t.lines {
		if line = strings.TrimSpace(strings.TrimPrefix(line, "preforkd-worker: ")); line != "" && !strings.HasPrefix(line, "try: ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return exit
	}
	return exit + ": " + strings.Join(said, "; ")
}
