package config

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// MainPool is the name of the pool that the settings outside of pools describe.
const MainPool = "main"

// Pool is one of Config.Pools. What it does not set of models, user, group, groups, predict, timeouts,
// layers, http, recycle and of the limits of worker is as outside of pools. Routes are its own.
type Pool struct {
	// Listen are the addresses that its workers serve; no two pools have the same.
	Listen   []Address `yaml:"listen"`
	Workers  Workers   `yaml:"workers" default:"1" check:"auto|1..1024"`
	Models   string    `yaml:"models" default:"models" check:"nonempty"`
	User     Account   `yaml:"user"`
	Group    Account   `yaml:"group"`
	Groups   []Account `yaml:"groups"`
	Predict  Predict   `yaml:"predict"`
	Worker   Worker    `yaml:"worker"`
	Timeouts Timeouts  `yaml:"timeouts"`
	Layers   Layers    `yaml:"layers"`
	HTTP     HTTP      `yaml:"http"`
	Recycle  Recycle   `yaml:"recycle"`
	Helper   Helper    `yaml:"helper"`

	Routes map[string]Route `yaml:"routes"`
}

// Values of Worker.Kind, Worker.Ready and Worker.Live.
const (
	KindAuto  = "auto"
	KindOwn   = "preforkd"
	KindOther = "other"
	// KindHelper is another program that our workers ask; see Helper.
	KindHelper = "helper"

	ReadyAuto   = "auto"
	ReadyNotify = "notify"
	ReadyProbe  = "probe"
	ReadyDelay  = "delay"

	LiveAuto     = "auto"
	LiveProbe    = "probe"
	LiveWatchdog = "watchdog"
	LiveNone     = "none"
)

// placeholderProbe stands in a command for the descriptor of a worker's own socket.
const placeholderProbe = "{probe}"

// PoolNames returns the names of all pools, main first.
func (c *Config) PoolNames() []string {
	names := append([]string{MainPool}, slices.Sorted(maps.Keys(c.Pools))...)
	if c.Tasks.hasPool() {
		names = append(names, TasksPool)
	}
	return names
}

// ForPool returns the settings as they are for the workers of one pool: as if it were the
// only one.
func (c *Config) ForPool(name string) *Config {
	own := *c
	own.Pools = nil
	if _, only := c.RunsTasks(name); only {
		c.forTasks(&own)
		return &own
	}
	if p, ok := c.Pools[name]; ok && name != MainPool {
		own.Listen, own.Workers, own.Models.Dir, own.Predict = p.Listen, p.Workers, p.Models, p.Predict
		own.User, own.Group, own.Groups = p.User, p.Group, p.Groups
		own.Worker, own.Timeouts, own.HTTP, own.Recycle = p.Worker, p.Timeouts, p.HTTP, p.Recycle
		own.Layers, own.Routes = p.Layers, p.Routes
	}
	own.Helpers = c.helpers()
	return &own
}

// PoolKey returns the key of a setting of a pool, as operators write it.
func PoolKey(pool, key string) string {
	if pool == MainPool {
		return key
	}
	return "pools." + pool + "." + key
}

// Other tells whether the command is a program that is not our worker: KindAuto takes one
// whose file is called preforkd-worker for ours.
func (w *Worker) Other() bool {
	if w.Kind == KindAuto {
		return len(w.Command) > 0 && path.Base(w.Command[0]) != "preforkd-worker"
	}
	return w.Kind == KindOther || w.Kind == KindHelper
}

// Probed tells whether each worker gets a socket of its own to be probed on.
func (w *Worker) Probed() bool {
	return w.Kind == KindHelper || slices.ContainsFunc(w.Command, func(arg string) bool { return strings.Contains(arg, placeholderProbe) })
}

// ReadyBy returns how another program that listens on those addresses shows that it is
// ready: by a probe, where one is possible, else by a delay.
func (w *Worker) ReadyBy(listen []Address) string {
	switch {
	case w.Ready != ReadyAuto:
		return w.Ready
	case w.Probed() || hasTCP(listen):
		return ReadyProbe
	}
	return ReadyDelay
}

// LiveBy returns how another program shows that it still works.
func (w *Worker) LiveBy() string {
	switch {
	case w.Live != LiveAuto:
		return w.Live
	case w.Probed():
		return LiveProbe
	}
	return LiveNone
}

// hasTCP tells whether there is an address over TCP, or may be: of an inherited one it
// shows later.
func hasTCP(listen []Address) bool {
	return slices.ContainsFunc(listen, func(a Address) bool { return a.Network != "unix" })
}

// inherited are the settings of a pool that are as outside of pools where it does not set
// them, by key or by section.
var inherited = []string{
	"models", "user", "group", "groups", "predict.", "timeouts.", "layers.", "http.", "recycle.",
	"worker.max_crashes", "worker.crash_window", "worker.quarantine_after", "worker.max_backoff",
	"worker.oom_score_adj", "worker.limits.",
}

// inherit completes the pools.
func (g *loader) inherit(c *Config) {
	for name, p := range c.Pools {
		from := map[string]setting{}
		for _, s := range settingsOf(reflectOf(c), "") {
			from[s.key] = s
		}
		_, ownModels := g.places["pools."+name+".models"]
		_, ownUser := g.places["pools."+name+".user"]
		for _, s := range settingsOf(reflectOf(&p), "") {
			key := "pools." + name + "." + s.key
			_, set := g.places[key]
			foreign := ownModels && s.key == "predict.model" || ownUser && (s.key == "group" || s.key == "groups")
			if set || foreign || !inherits(s.key) {
				continue
			}
			s.value.Set(from[s.key].value)
			if place, ok := g.places[s.key]; ok {
				g.places[key] = place
			}
		}
		c.Pools[name] = p
	}
}

func inherits(key string) bool {
	return slices.ContainsFunc(inherited, func(k string) bool { return k == key || strings.HasSuffix(k, ".") && strings.HasPrefix(key, k) })
}

// maxPoolName is the length of a pool's name: it is part of log lines and labels.
const maxPoolName = 32

// checkPools reports pools that cannot be.
func (g *loader) checkPools(c *Config) (warnings []string) {
	has := map[string]string{} // by address, who listens there
	for _, name := range c.PoolNames() {
		if name != MainPool {
			g.checkPoolName(name)
		} else if _, reserved := c.Pools[MainPool]; reserved {
			g.problemAt("pools."+MainPool, "is the pool of the settings outside of pools; write them there")
		}
		p := c.ForPool(name)
		for i, a := range p.Listen {
			key := fmt.Sprintf("%s[%d]", PoolKey(name, "listen"), i)
			if before, twice := has[a.same()]; twice {
				g.problemAt(key, fmt.Sprintf("%q is the same address as %s; remove one", a, before))
				continue
			}
			has[a.same()] = fmt.Sprintf("%q in %s", a, key)
		}
		g.checkWorker(name, p)
		if _, only := c.RunsTasks(name); !only { // what runs too long is given back
			warnings = append(warnings, timeoutWarnings(name, p)...)
		}
		warnings = append(warnings, g.checkRoutes(name, p)...)
	}
	return warnings
}

// checkPoolName reports a name that would not do in an option, a label and a log line.
func (g *loader) checkPoolName(name string) {
	bad := len(name) > maxPoolName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || strings.HasPrefix(name, "-")
	if bad {
		g.problemAt("pools."+name, fmt.Sprintf("is no name of a pool; write at most %d small letters, digits, - and _", maxPoolName))
	}
}

// checkWorker reports what does not fit together in a worker's settings.
func (g *loader) checkWorker(pool string, c *Config) {
	key := func(k string) string { return PoolKey(pool, "worker."+k) }
	w := &c.Worker
	switch {
	case len(w.Command) > 0 && w.Command[0] == "":
		g.problemAt(key("command")+"[0]", `"" names no program; write its name or path`)
		return
	case (w.Kind == KindOther || w.Kind == KindHelper) && len(w.Command) == 0:
		g.problemAt(key("kind"), fmt.Sprintf("%q needs a program; write %s", w.Kind, key("command")))
		return
	case !w.Other():
		return
	}
	if w.Probe.Path[0] != '/' || strings.ContainsAny(w.Probe.Path, " \t\n#") {
		g.problemAt(key("probe.path"), fmt.Sprintf("%q is no path of a request; write one that begins with /", w.Probe.Path))
	}
	if w.Live == LiveProbe && !w.Probed() {
		g.problemAt(key("live"), fmt.Sprintf(`"probe" needs a socket that only the probed worker serves; write %s in %s, or watchdog, or none`, placeholderProbe, key("command")))
	}
	if w.Ready == ReadyProbe && !w.Probed() && !hasTCP(c.Listen) {
		g.problemAt(key("ready"), fmt.Sprintf(`"probe" needs an address over TCP, or %s in %s; write one, or notify, or delay`, placeholderProbe, key("command")))
	}
}
