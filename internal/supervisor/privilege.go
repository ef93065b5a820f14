package supervisor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/process"
)

// oomScoreAdd is by how much this process's oom_score_adj is above the main process's. Workers
// are higher (worker.oom_score_adj): they die first, and the main process last.
const oomScoreAdd = 50

// limits are what workers of p are started with.
func (s *Supervisor) limits(p *pool) process.Limits {
	l := process.Limits{Umask: 0o027, OOMScoreAdj: p.cfg.Worker.OOMScoreAdj - s.oomAbove, Batch: !p.other}
	if p.background { // it gives way to those whose clients wait
		l.Nice = backgroundNice
	}
	if p.trial { // it gives way to those that serve, with the core and with memory
		l.Nice, l.OOMScoreAdj = trialNice, min(l.OOMScoreAdj+oomScoreAdd, 1000)
	}
	c := &p.cfg.Worker.Limits
	for _, r := range []struct {
		name  string
		limit config.Limit
	}{{"nofile", c.NoFile}, {"core", c.Core}, {"as", c.AS}, {"nproc", c.NProc}, {"memlock", c.MemLock}, {"stack", c.Stack}} {
		if value, given := r.limit.Value(); given {
			l.Resources = append(l.Resources, process.Rlimit{Name: r.name, Value: value})
		}
	}
	return l
}

// backgroundNice is how much workers give way that only run background tasks.
const backgroundNice = 19

// hasOthers tells whether workers of g are another user's than this process.
func (g *generation) hasOthers() bool {
	return slices.ContainsFunc(g.pools, func(p *pool) bool { return !p.identity.Ours() })
}

// check refuses a pool whose workers could not be started as their settings say, or could
// not get at what they need, before one of them says so at boot. Where they are as we are
// there is nothing to find out.
func (s *Supervisor) check(p *pool) error {
	limits := s.limits(p)
	if w := &p.cfg.Worker; p.other && !w.Probed() && w.ReadyBy(p.cfg.Listen) == config.ReadyProbe && !p.identity.MayLook() {
		return &ipc.Failure{
			Exit: ipc.ExitPermission, What: fmt.Sprintf("%s: this service may not look which process of user %s answers a probe of the shared socket", p.key("worker.ready"), p.identity),
			Try: "give it CAP_SYS_PTRACE, or write {probe} in " + p.key("worker.command") + ", or set " + p.key("worker.ready") + " to notify or delay",
		}
	}
	if p.identity.Ours() && len(limits.Resources) == 0 {
		return nil
	}
	spec := process.Spec{
		Path: p.programs.path, Args: p.programs.args, Executable: p.programs.worker, ByName: !p.programs.own,
		Env: inheritable(), Limits: limits, Identity: p.identity,
	}
	var reach process.Reach
	if p.other {
		dir, err := filepath.Abs(p.cfg.Worker.Dir)
		if err != nil {
			return err
		}
		spec.Dir, reach.Dir = dir, dir
	}
	for _, m := range p.models {
		for _, name := range m.Files {
			reach.Files = append(reach.Files, filepath.Join(filepath.Dir(m.Path), name))
		}
	}
	found, err := process.Check(spec, reach)
	if err != nil || found == nil {
		return err
	}
	return p.refuse(found)
}

// refuse says which setting is in the way, and what to do.
func (p *pool) refuse(o *process.Obstacle) error {
	f := &ipc.Failure{Exit: ipc.ExitPermission}
	within := fmt.Sprintf("let user %s enter the directories above it (namei -l %s shows them) and ", p.identity, o.Path)
	key := ""
	switch {
	case o.Limit != "":
		key = p.key("worker.limits." + o.Limit)
		f.Try = fmt.Sprintf("lower it, or raise the service's own limit (Limit%s= of its unit, prlimit(1))", strings.ToUpper(o.Limit))
	case o.Path == "":
		key, f.Try = p.key("user"), "give the service CAP_SETUID, CAP_SETGID and CAP_KILL, or set user to the one that it runs as"
	case o.Path == p.programs.path:
		key, f.Try = p.key("worker.command"), within+"execute it"
	case strings.HasPrefix(o.Path, p.cfg.Cache.Dir+"/"):
		key, f.Try = "cache.dir", within+"read it, or set cache.dir to another directory"
	default:
		key, f.Try = p.key("worker.dir"), within+"enter it, or set "+p.key("worker.dir")+" to another directory"
	}
	f.What = key + ": " + o.What
	return f
}
