package supervisor

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/process"
)

// keptGeneration is a generation that was committed, as the main process keeps it for a successor
// of this process. Descriptors are there by the names under which they are kept.
type keptGeneration struct {
	Number      uint64         `json:"number"`
	Settings    *config.Config `json:"settings"`
	Committed   time.Time      `json:"committed"`
	Cause       string         `json:"cause"`
	Origin      uint64         `json:"origin,omitempty"`
	Differences []string       `json:"differences,omitempty"`
	Sockets     []keptSocket   `json:"sockets,omitempty"` // none once it is no longer in charge
	Pools       []keptPool     `json:"pools"`
	Program     string         `json:"program,omitempty"` // the supervisor's path; it is kept itself
}

type keptSocket struct {
	Key  string         `json:"key"`
	Name string         `json:"name"`
	From config.Address `json:"from"`
	Own  bool           `json:"own,omitempty"` // the file of a unix socket is ours to remove
}

type keptPool struct {
	Name   string          `json:"name"`
	Number int             `json:"number"`
	Size   int             `json:"size"`
	Asked  int             `json:"asked"`
	Procs  int             `json:"procs"`
	Surge  int             `json:"surge"`
	Models []ipc.ModelFile `json:"models,omitempty"`

	Unloaded []ipc.UnloadedModel `json:"unloaded,omitempty"`

	Path    string   `json:"path"` // of the worker's program
	Args    []string `json:"args"`
	Own     bool     `json:"own,omitempty"`
	Library string   `json:"library,omitempty"`
	Worker  bool     `json:"worker,omitempty"` // the program itself is kept
	Engine  bool     `json:"engine,omitempty"` // and so is the library
	Queue   string   `json:"queue,omitempty"`

	Identity *process.Identity `json:"identity,omitempty"` // found when it was made: the user may be gone by now
}

// key is the name under which a generation, or a part of it, is kept.
func keptName(number uint64, parts ...string) string {
	return strings.Join(append([]string{ipc.KeptGeneration + strconv.FormatUint(number, 10)}, parts...), "/")
}

// keepGeneration has the main process keep k, in place of what it has of it.
func (s *Supervisor) keepGeneration(k *kept) {
	if s.keeper == nil {
		return
	}
	g := k.gen
	r := keptGeneration{Number: g.number, Settings: g.cfg, Committed: k.committed, Cause: k.cause, Origin: k.origin, Differences: k.differences, Program: g.path}
	if g.program != nil {
		s.keeper.store(keptName(g.number, "supervisor"), int(g.program.Fd()))
	}
	if err := s.keeper.storeJSON(keptName(g.number, "door"), g.door); err != nil {
		s.log.Error("tokens and certificates not kept: they would not survive this process", "generation", g.number, "err", err)
	}
	for _, sock := range g.sockets {
		r.Sockets = append(r.Sockets, keptSocket{Key: sock.key, Name: sock.Name, From: sock.from, Own: sock.Owned()})
	}
	for _, p := range g.pools {
		kp := keptPool{
			Name: p.name, Number: p.number, Size: p.size, Asked: p.asked, Procs: p.procs, Surge: p.surge, Models: p.models, Unloaded: p.unloaded,
			Path: p.programs.path, Args: p.programs.args, Own: p.programs.own, Library: p.programs.library,
			Worker: p.programs.worker != nil, Engine: p.programs.engine != nil, Queue: p.queueKey, Identity: p.identity,
		}
		if kp.Worker {
			s.keeper.store(keptName(g.number, p.name, "worker"), int(p.programs.worker.Fd()))
		}
		if kp.Engine {
			s.keeper.store(keptName(g.number, p.name, "engine"), int(p.programs.engine.Fd()))
		}
		r.Pools = append(r.Pools, kp)
	}
	for i, fd := range g.leaseDescriptors() {
		s.keeper.store(keptName(g.number, "lease", strconv.Itoa(i)), fd)
	}
	if err := s.keeper.storeJSON(keptName(g.number), r); err != nil {
		s.log.Error("generation not kept: it would not survive this process", "generation", g.number, "err", err)
	}
	s.keepService(g)
}

// leaseDescriptors are those that hold g's leases.
func (g *generation) leaseDescriptors() (fds []int) {
	for _, l := range g.leases {
		fds = append(fds, l.Descriptors()...)
	}
	return fds
}

// unkeep has the main process give g back.
func (s *Supervisor) unkeep(g *generation) {
	if s.keeper == nil {
		return
	}
	s.keeper.remove(keptName(g.number))
	s.keeper.remove(keptName(g.number, "supervisor"))
	s.keeper.remove(keptName(g.number, "door"))
	for _, p := range g.pools {
		s.keeper.remove(keptName(g.number, p.name, "worker"))
		s.keeper.remove(keptName(g.number, p.name, "engine"))
	}
	for i := range g.leaseDescriptors() {
		s.keeper.remove(keptName(g.number, "lease", strconv.Itoa(i)))
	}
}

// records reads the generations that are kept, the earliest first.
func (m *Main) records() (all []keptGeneration, err error) {
	for _, name := range m.names(ipc.KeptGeneration) {
		if strings.Count(name, "/") > 1 {
			continue
		}
		var r keptGeneration
		if err := readJSON(m.take(name), &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b keptGeneration) int { return cmp.Compare(a.Number, b.Number) })
	return all, nil
}

// restore makes the generation of r from what is kept, with the sockets, queues and
// manifests of a generation in charge if it is that.
func (s *Supervisor) restore(r *keptGeneration, inCharge bool) (g *generation, err error) {
	g = &generation{number: r.Number, cfg: r.Settings, keeper: s.keeper, path: r.Program}
	if fd := s.opts.Main.take(keptName(r.Number, "supervisor")); fd >= 0 {
		g.program = os.NewFile(uintptr(fd), r.Program)
	}
	if fd := s.opts.Main.take(keptName(r.Number, "door")); fd >= 0 { // programs from before had none
		if err := readJSON(fd, &g.door); err != nil {
			return g, fmt.Errorf("read what guards generation %d: %w", r.Number, err)
		}
	}
	for _, kp := range r.Pools {
		s.numbers[kp.Name] = kp.Number
	}
	if inCharge {
		if err := s.restoreSockets(g, r); err != nil {
			return g, err
		}
	}
	for i := range r.Pools {
		if err := s.restorePool(g, &r.Pools[i], inCharge); err != nil {
			return g, err
		}
	}
	lease, err := cache.Hold(g.models)
	if err != nil {
		return g, err
	}
	g.leases = append(g.leases, lease)
	return g, nil
}

func (s *Supervisor) restoreSockets(g *generation, r *keptGeneration) error {
	for _, ks := range r.Sockets {
		fd := s.opts.Main.take(ks.Key)
		if fd < 0 {
			return fmt.Errorf("listening socket %s of generation %d was not kept", ks.From, r.Number)
		}
		sock, err := activation.Adopt(fd, ks.Name)
		if err != nil {
			return err
		}
		if ks.Own {
			sock.Own()
		}
		g.sockets = append(g.sockets, boundSocket{Socket: sock, from: ks.From, key: ks.Key})
	}
	return nil
}

func (s *Supervisor) restorePool(g *generation, kp *keptPool, inCharge bool) (err error) {
	main := s.opts.Main
	p := s.newPool(g, kp.Name)
	p.size, p.asked, p.procs, p.surge, p.models, p.unloaded, p.identity = kp.Size, kp.Asked, kp.Procs, kp.Surge, kp.Models, kp.Unloaded, kp.Identity
	p.programs = programs{path: kp.Path, args: kp.Args, own: kp.Own, library: kp.Library}
	if fd := main.take(keptName(g.number, kp.Name, "worker")); fd >= 0 {
		p.programs.worker = os.NewFile(uintptr(fd), kp.Path)
	}
	if fd := main.take(keptName(g.number, kp.Name, "engine")); fd >= 0 {
		p.programs.engine = os.NewFile(uintptr(fd), kp.Library)
	}
	g.addModels(p.models)
	if !inCharge {
		return nil
	}
	s.claimModels(p.models)
	p.takeSockets()
	p.queueKey = kp.Queue
	if s.takeQueues(p); p.queues == noQueues {
		if err := p.queue(nil); err != nil {
			return err
		}
	}
	for i := range p.size {
		p.slots = append(p.slots, &poolSlot{pool: p, index: i})
	}
	return p.seal()
}
