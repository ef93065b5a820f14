package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/sizing"
	"preforkd/internal/supervisor/slot"
)

// generation is the workers that are started from one manifest.
type generation struct {
	number   uint64
	cfg      *config.Config
	models   []ipc.ModelFile
	sockets  []boundSocket
	programs programs
	lease    *cache.Lease // of the copies of models
	manifest int          // sealed memory; -1: not made yet
	pools    []*pool      // main first
}

// newGeneration makes what the workers of generation number start from; old is nil for the
// first one. It starts no worker.
func (s *Supervisor) newGeneration(number uint64, cfg *config.Config, old *generation) (_ *generation, err error) {
	if err := absolute(cfg); err != nil {
		return nil, err
	}
	g := &generation{number: number, cfg: cfg, manifest: -1}
	defer func() {
		if err != nil {
			g.release(old)
		}
	}()
	if g.programs, err = openPrograms(cfg.Worker.Command, cfg.Inference.Library); err != nil {
		return nil, err
	}
	models, err := cache.Collect(cache.Options{
		Models: cfg.Models, Cache: cfg.Cache.Dir, Decode: config.Decode,
		Shared: filepath.Dir(cfg.Cache.Dir) == "/var/tmp",
	})
	if err != nil {
		return nil, err
	}
	g.models, g.lease = models.Models, models.Lease
	for _, w := range models.Warnings {
		s.log.Warn("model directory", "warning", w)
	}
	if err := checkDefaultModel(cfg, models.Models); err != nil {
		return nil, err
	}
	if err := s.complete(g, old); err != nil {
		return nil, err
	}
	return g, nil
}

// complete makes what no generation has of another: its pools and its manifest. The sockets
// that old has stay as they are, and so does the size to which its pool was scaled.
func (s *Supervisor) complete(g, old *generation) (err error) {
	var have []boundSocket
	if old != nil {
		have = old.sockets
	}
	if g.sockets, err = listen(g.cfg.Listen, have, s.log.Warn); err != nil {
		return err
	}
	s.claimModels(g.models)
	g.pools = []*pool{s.newPool(g, mainPool, g.programs.path, g.programs.args, old)}
	return g.seal()
}

// seal makes the manifest.
func (g *generation) seal() error {
	settings, err := json.Marshal(g.cfg)
	if err != nil {
		return fmt.Errorf("encode the configuration for workers: %w", err)
	}
	data, err := json.Marshal(ipc.Manifest{Generation: g.number, Settings: settings, Library: g.programs.library, Models: g.models})
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	g.manifest, err = activation.Sealed("preforkd-manifest", data)
	return err
}

// release gives back all that g has. No worker of g may be started afterwards.
func (g *generation) release(other *generation) {
	g.retire(other)
	activation.Close(g.manifest)
	g.manifest = -1
	g.programs.close()
	g.lease.Close()
}

// retire gives back the sockets that other, which goes on, has not; other may be nil. What
// is left of g is what a rollback to it needs.
func (g *generation) retire(other *generation) {
	var keep []boundSocket
	if other != nil {
		keep = other.sockets
	}
	g.closeSockets(keep)
}

// closeSockets closes those that are not in keep.
func (g *generation) closeSockets(keep []boundSocket) {
	for _, sock := range g.sockets {
		if !slices.ContainsFunc(keep, func(k boundSocket) bool { return k.Socket == sock.Socket }) {
			_ = sock.Close()
		}
	}
	g.sockets = nil
}

// newPool makes the pool called name of g.
func (s *Supervisor) newPool(g *generation, name, path string, command []string, old *generation) *pool {
	in := s.room(g)
	in.Asked = int(g.cfg.Workers)
	plan := sizing.Decide(in)
	asked := plan.Workers
	if before := old.pool(name); before != nil && before.size != before.asked && old.cfg.Workers == g.cfg.Workers {
		in.Asked, in.Scaled = before.size, true
		plan = sizing.Decide(in)
	}
	surge := plan.Surge
	if n := int(g.cfg.Reload.MaxSurge); n > 0 {
		surge = n
	}
	s.log.Info("pool sized", "workers", plan.Workers, "why", plan.Why)
	if plan.Warning != "" {
		s.log.Warn("pool may not fit", "warning", plan.Warning)
	}
	c := g.cfg
	p := &pool{
		gen: g, name: name, path: path, command: command, procs: plan.Procs, size: plan.Workers, asked: asked, surge: surge,
		clocks: clocks{boot: c.Timeouts.Boot, heartbeat: c.Timeouts.Heartbeat, drain: c.Timeouts.Drain},
		policy: slot.Policy{MaxCrashes: c.Worker.MaxCrashes, CrashWindow: c.Worker.CrashWindow, MaxWait: c.Worker.MaxBackoff, QuarantineAfter: c.Worker.QuarantineAfter},
	}
	number, known := s.numbers[name]
	if !known {
		number = len(s.numbers)
		s.numbers[name] = number
	}
	p.number = number
	for i := range plan.Workers {
		p.slots = append(p.slots, &poolSlot{pool: p, index: i})
	}
	return p
}

// room is the machine as it is now, for workers of g.
func (s *Supervisor) room(g *generation) sizing.Input {
	found, err := machine.Read()
	if err != nil {
		s.log.Warn("machine not fully known", "err", err)
	}
	in := sizing.Input{Cores: found.Cores, Available: found.Available}
	for _, m := range g.models {
		in.ModelBytes += uint64(m.Bytes)
	}
	return in
}

// pool returns the pool of that name, nil if g, which may be nil, has none.
func (g *generation) pool(name string) *pool {
	if g == nil {
		return nil
	}
	for _, p := range g.pools {
		if p.name == name {
			return p
		}
	}
	return nil
}

// slots returns those of all pools.
func (g *generation) slots() (slots []*poolSlot) {
	for _, p := range g.pools {
		slots = append(slots, p.slots...)
	}
	return slots
}

// poolNamed returns the pool that an operator named; an empty name is that of the main
// pool.
func (g *generation) poolNamed(name string) (*pool, error) {
	if name == "" {
		name = mainPool
	}
	if p := g.pool(name); p != nil {
		return p, nil
	}
	var names []string
	for _, p := range g.pools {
		names = append(names, p.name)
	}
	return nil, &ipc.Failure{
		Exit: ipc.ExitUsage, What: fmt.Sprintf("there is no pool %q", name), Try: "use --pool " + strings.Join(names, ", or --pool "),
	}
}

// absolute makes the paths that workers use independent of this process's directory:
// they run in /.
func absolute(cfg *config.Config) (err error) {
	cfg.Cache.Dir = cfg.CacheDir(os.Getenv, os.Getuid())
	for _, path := range []*string{&cfg.Cache.Dir, &cfg.Inference.Library} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("make %s absolute: %w", *path, err)
		}
	}
	return nil
}

// checkDefaultModel refuses a predict.model that is not there.
func checkDefaultModel(cfg *config.Config, models []ipc.ModelFile) error {
	want := cfg.Predict.Model
	if want == "" {
		return nil
	}
	var names []string
	for _, m := range models {
		if m.Name == want {
			return nil
		}
		names = append(names, m.Name)
	}
	return &ipc.Failure{
		Exit: ipc.ExitConfig, What: fmt.Sprintf("predict.model: %s is not in %s, which holds %s", want, cfg.Models, strings.Join(names, ", ")),
		Try: "name a model that is there, or remove the setting",
	}
}
