package supervisor

import (
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
	"preforkd/internal/supervisor/pbtxt"
	"preforkd/internal/supervisor/sizing"
)

// generation is the workers that are started from one configuration.
type generation struct {
	number  uint64
	cfg     *config.Config
	models  []ipc.ModelFile // of all pools, each once
	leases  []*cache.Lease  // of the copies of models
	sockets []boundSocket   // of all pools
	door    ipc.Door        // what is asked of those who connect
	pools   []*pool         // main first
	keeper  *keeper         // of sockets and queues; nil: nobody keeps them
	program *os.File        // the supervisor's; nil: not held
	path    string          // and where that was
}

// emptyGeneration returns one of this program's, without pools.
func (s *Supervisor) emptyGeneration(number uint64, cfg *config.Config) *generation {
	g := &generation{number: number, cfg: cfg, keeper: s.keeper}
	if main := s.opts.Main; main != nil {
		g.path = main.program
		g.program, _ = duplicate(main.self) // without it a rollback stays with the program that runs
	}
	return g
}

// newGeneration makes what the workers of generation number start from; old is nil for the
// first one. It starts no worker.
func (s *Supervisor) newGeneration(number uint64, cfg *config.Config, old *generation) (_ *generation, err error) {
	if err := absolute(cfg); err != nil {
		return nil, err
	}
	g := s.emptyGeneration(number, cfg)
	defer func() {
		if err != nil {
			g.release(old)
		}
	}()
	if err := s.guard(g, old); err != nil {
		return nil, err
	}
	for _, name := range cfg.PoolNames() {
		if err := s.newPool(g, name).identify(); err != nil {
			return nil, err
		}
	}
	collected := map[string]*cache.Collection{}
	for _, p := range g.pools {
		if p.programs, err = openPrograms(p.key("worker.command"), p.cfg.Worker.Command, p.cfg.Inference.Library); err != nil {
			return nil, err
		}
		if p.other {
			p.programs.withoutEngine()
		}
		if err := s.collect(p, collected); err != nil {
			return nil, err
		}
	}
	if err := s.complete(g, old); err != nil {
		return nil, err
	}
	return g, nil
}

// collect finds the models of p; those of a directory that another pool has are there
// already.
func (s *Supervisor) collect(p *pool, collected map[string]*cache.Collection) error {
	if p.other {
		return nil
	}
	c := p.cfg
	found, ok := collected[c.Models.Dir]
	if !ok {
		var err error
		if found, err = cache.Collect(p.cacheOptions()); err != nil {
			return err
		}
		for _, w := range found.Warnings {
			s.log.Warn("model directory", "warning", w)
		}
		collected[c.Models.Dir] = found
		p.gen.leases = append(p.gen.leases, found.Lease)
	}
	p.models = slices.Clone(found.Models)
	if err := checkDefaultModel(p); err != nil {
		return err
	}
	if err := checkStepModels(p); err != nil {
		return err
	}
	s.prepareModels(p, p.models, found.Lease)
	return nil
}

// cacheOptions say where p's models are from, and where they go.
func (p *pool) cacheOptions() cache.Options {
	return cache.Options{
		Models: p.cfg.Models.Dir, Cache: p.cfg.Cache.Dir, Decode: config.Decode, DecodeText: pbtxt.Decode,
		Shared: filepath.Dir(p.cfg.Cache.Dir) == "/var/tmp", Readable: p.gen.hasOthers(),
	}
}

// complete makes what no generation has of another: sockets, slots and manifests. The
// sockets and queues that old has stay as they are, and so do the sizes to which its pools
// were scaled.
func (s *Supervisor) complete(g, old *generation) error {
	inherited, err := s.inherited(g.addresses())
	if err != nil {
		return err
	}
	if err := g.listen(old, inherited, s.log.Warn); err != nil {
		return err
	}
	s.warnOpen(g)
	if err := s.size(g, old); err != nil {
		return err
	}
	for _, p := range g.pools {
		s.claimModels(p.models)
		g.addModels(p.models)
		if err := p.queue(old.pool(p.name)); err != nil {
			return err
		}
		if err := p.seal(); err != nil {
			return err
		}
		if err := s.check(p); err != nil {
			return err
		}
	}
	return nil
}

// addModels adds those of a pool that no other pool of g has.
func (g *generation) addModels(models []ipc.ModelFile) {
	for _, m := range models {
		if !slices.ContainsFunc(g.models, func(o ipc.ModelFile) bool { return o.Name == m.Name && o.Version == m.Version && o.Digest == m.Digest }) {
			g.models = append(g.models, m)
		}
	}
}

// addresses are those of all pools.
func (g *generation) addresses() (all []config.Address) {
	for _, p := range g.pools {
		all = append(all, p.cfg.Listen...)
	}
	return all
}

// listen opens the sockets of all pools that old has not, and gives each pool its own.
func (g *generation) listen(old *generation, inherited *activation.Inheritance, warn func(string, ...any)) (err error) {
	var have []boundSocket
	if old != nil {
		have = old.sockets
	}
	if g.sockets, err = listen(g.addresses(), have, inherited, warn); err != nil {
		return err
	}
	for i := range g.sockets {
		if sock := &g.sockets[i]; sock.key == "" {
			sock.key = fresh(ipc.KeptSocket)
			if sock.from.Network == "fd" { // the service manager has it, as a socket of its own
				g.keeper.store(sock.key, sock.FD)
			} else {
				g.keeper.store(sock.key, sock.FD, outliving)
			}
		}
	}
	for _, p := range g.pools {
		p.takeSockets()
		if err := p.checkCommand(); err != nil {
			return err
		}
	}
	return nil
}

// takeSockets gives p its own of the generation's sockets.
func (p *pool) takeSockets() {
	for _, sock := range p.gen.sockets {
		if slices.Contains(p.cfg.Listen, sock.from) {
			p.sockets = append(p.sockets, sock)
		}
	}
}

// release gives back all that g has. No worker of g may be started afterwards.
func (g *generation) release(other *generation) {
	g.retire(other)
	for _, p := range g.pools {
		activation.Close(p.manifest)
		p.manifest = -1
		p.programs.close()
	}
	for _, l := range g.leases {
		l.Close()
	}
	if g.program != nil {
		g.program.Close()
		g.program = nil
	}
}

// retire gives back the sockets and queues that other, which goes on, has not; other may be
// nil. What is left of g is what a rollback to it needs.
func (g *generation) retire(other *generation) {
	for _, p := range g.pools {
		p.closeQueue(other.pool(p.name))
	}
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
			if g.keeper.isFrozen() {
				activation.Close(sock.FD)
				continue
			}
			_ = sock.Close()
			g.keeper.remove(sock.key)
		}
	}
	g.sockets = nil
}

// size decides how many workers each pool has. Pools whose number is given come first: the
// others share what they leave of the memory.
func (s *Supervisor) size(g, old *generation) error {
	found, err := machine.Read()
	if err != nil {
		s.log.Warn("machine not fully known", "err", err)
	}
	s.logMachine(found)
	taken := uint64(0)
	for _, auto := range []bool{false, true} {
		for _, p := range g.pools {
			if p.cfg.Workers.Auto() != auto {
				continue
			}
			more, err := s.sizePool(p, old, p.room(found), taken)
			if err != nil {
				return err
			}
			taken += more
		}
	}
	return nil
}

// sizePool decides about one, of the memory of in of which so much is taken, and returns how
// much more it is planned with.
func (s *Supervisor) sizePool(p *pool, old *generation, in sizing.Input, taken uint64) (uint64, error) {
	if in.Available > 0 {
		in.Available = max(in.Available-min(in.Available, taken), 1) // 0 would mean unknown
	}
	in.Asked = int(p.cfg.Workers)
	before := old.pool(p.name)
	if before != nil {
		in.Running = sizing.Decide(sizing.Input{Asked: before.size, ModelBytes: before.modelBytes(), SharedBytes: before.sharedBytes()}).Memory
	}
	// What runs already has shown that it fits, and other programs may need less.
	if what, try := sizing.Short(in); what != "" && old == nil && p.programs.own {
		return 0, &ipc.Failure{Exit: ipc.ExitConfig, What: "pool " + p.name + ": " + what, Try: try}
	}
	plan := sizing.Decide(in)
	p.asked = plan.Workers
	if before != nil && before.size != before.asked && before.cfg.Workers == p.cfg.Workers {
		in.Asked, in.Scaled = before.size, true
		plan = sizing.Decide(in)
	}
	p.procs, p.goMemory, p.size, p.surge = plan.Procs, plan.GoMemory, plan.Workers, plan.Surge
	if n := int(p.cfg.Reload.MaxSurge); n > 0 {
		p.surge = n
	}
	if p.isHelper() { // old workers ask the old ones until all are replaced
		p.surge = max(plan.Workers, p.asked)
	}
	s.logPlan(p, in, plan)
	for i := range plan.Workers {
		p.slots = append(p.slots, &poolSlot{pool: p, index: i})
	}
	return plan.Memory, nil
}

// room is the machine as it is now, for workers of p.
func (s *Supervisor) room(p *pool) sizing.Input {
	found, err := machine.Read()
	if err != nil {
		s.log.Warn("machine not fully known", "err", err)
	}
	return p.room(found)
}

func (p *pool) room(found machine.Resources) sizing.Input {
	return sizing.Input{
		Cores: found.Cores, Memory: found.Memory, Available: found.Available, Limited: found.Limited,
		ModelBytes: p.modelBytes(), SharedBytes: p.sharedBytes(), Foreign: !p.programs.own,
	}
}

// modelBytes is the size of all model files of p together, less the weights that its workers
// share.
func (p *pool) modelBytes() (n uint64) {
	for _, m := range p.models {
		n += uint64(m.Bytes - min(m.Bytes, m.Shared))
	}
	return n
}

// sharedBytes is the size of the weights that all workers of p share.
func (p *pool) sharedBytes() (n uint64) {
	for _, m := range p.models {
		n += uint64(m.Shared)
	}
	return n
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
		name = config.MainPool
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
	paths := []*string{&cfg.Cache.Dir, &cfg.Inference.Library}
	cfg.Inference.CustomOps = slices.Clone(cfg.Inference.CustomOps) // pools share the list
	for i := range cfg.Inference.CustomOps {
		paths = append(paths, &cfg.Inference.CustomOps[i])
	}
	for _, path := range paths {
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
func checkDefaultModel(p *pool) error {
	want := p.cfg.Predict.Model
	if want == "" {
		return nil
	}
	var names []string
	for _, m := range p.models {
		if m.Name == want {
			return nil
		}
		names = append(names, m.Name)
	}
	return &ipc.Failure{
		Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: %s is not in %s, which holds %s", config.PoolKey(p.name, "predict.model"), want, p.cfg.Models.Dir, strings.Join(slices.Compact(names), ", ")),
		Try: "name a model that is there, or remove the setting",
	}
}
