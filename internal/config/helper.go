package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Helper is the section of how workers ask the helpers of a pool: programs of worker.kind helper,
// each at a socket of its own (docs/helpers.md).
type Helper struct {
	// Connections is how many requests one worker has at one helper at once.
	Connections int `yaml:"connections" default:"4" check:"1..1000"`
	// MaxWaiting is how many requests of a worker may wait for a helper of the pool; more are refused.
	MaxWaiting int `yaml:"max_waiting" default:"100" check:"0..100000"`
	// MaxWait is how long one waits.
	MaxWait time.Duration `yaml:"max_wait" default:"5s" check:"1ms..24h"`
}

// helperProbe is the path at which a helper says that it is ready.
const helperProbe = "/v2/health/ready"

// helpers are the sections of the pools of helpers, by name.
func (c *Config) helpers() map[string]Helper {
	var all map[string]Helper
	for name, p := range c.Pools {
		if p.Worker.Kind == KindHelper {
			if all == nil {
				all = map[string]Helper{}
			}
			all[name] = p.Helper
		}
	}
	return all
}

// Step is one of Route.Steps: a model of the worker's own, or one of a pool of helpers.
type Step struct {
	Helper bool
	Name   string // of the model, or of the pool
	Sub    string // the version of a model, empty: the default; the model of a helper
}

// mostSteps of one route: far beyond any real one.
const mostSteps = 16

// ParseStep reads one of Route.Steps.
func ParseStep(text string) (s Step, err error) {
	kind, name, _ := strings.Cut(text, ":")
	s.Name, s.Sub, _ = strings.Cut(name, "/")
	s.Helper = kind == "helper"
	switch slash := strings.Contains(name, "/"); {
	case kind != "helper" && kind != "model", s.Name == "", slash && s.Sub == "", strings.Contains(s.Sub, "/"):
		return s, fmt.Errorf("%q is no step; write helper:POOL, helper:POOL/MODEL, model:NAME or model:NAME/VERSION", text)
	case s.Helper && s.Sub == "":
		s.Sub = s.Name
	case s.Helper && strings.Trim(s.Sub, pathLetters) != "":
		return s, fmt.Errorf("%q: the model of a helper is a part of a path, of letters, digits and -._~; write another name", text)
	}
	return s, nil
}

// helperProbes gives each helper the path at which it is probed, unless the operator has.
func (g *loader) helperProbes(c *Config) {
	for name, p := range c.Pools {
		if _, set := g.places["pools."+name+".worker.probe.path"]; p.Worker.Kind == KindHelper && !set {
			p.Worker.Probe.Path = helperProbe
			c.Pools[name] = p
		}
	}
}

// checkHelpers reports pools of helpers and steps that cannot be, and says which pools nobody asks.
func (g *loader) checkHelpers(c *Config) (warnings []string) {
	if c.Worker.Kind == KindHelper {
		g.problemAt("worker.kind", `"helper" is for a pool beside main; write it below pools`)
	}
	asked := map[string]bool{}
	for _, name := range c.PoolNames() {
		if name != MainPool {
			g.checkHelperPool(name, c)
		}
		routes := c.ForPool(name).Routes
		for _, path := range slices.Sorted(maps.Keys(routes)) {
			r := routes[path]
			if len(r.Steps) > 0 {
				g.checkSteps(c, PoolKey(name, "routes."+path), &r, asked)
				routes[path] = r
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.helpers())) {
		if !asked[name] {
			warnings = append(warnings, fmt.Sprintf("pools.%s: no route asks these helpers; write helper:%s in the steps of one", name, name))
		}
	}
	return warnings
}

// checkHelperPool reports what a pool of helpers has and cannot use, or a section for helpers that
// another pool has.
func (g *loader) checkHelperPool(name string, c *Config) {
	p, key := c.Pools[name], "pools."+name
	if p.Worker.Kind == KindHelper {
		if len(p.Listen) > 0 {
			g.problemAt(key+".listen", "is of no use: each helper has a socket of its own, which workers connect to; remove it")
		}
		return
	}
	for _, f := range fieldsOf(reflectOf(&p.Helper).Type()) {
		if at := key + ".helper." + f.name; g.places[at].source != "" {
			g.problemAt(at, "is for helpers; write "+key+".worker.kind: helper, or remove it")
		}
	}
}

// checkSteps reports steps of a route that cannot be, notes where each was set, and whom they ask.
func (g *loader) checkSteps(c *Config, key string, r *Route, asked map[string]bool) {
	if r.Layer != LayerSync {
		g.problemAt(key+".layer", fmt.Sprintf("%q is not for steps: helpers are on the layer sync and models on compute, each while it is asked; remove the line", r.Layer))
	}
	if len(r.Steps) > mostSteps {
		g.problemAt(key+".steps", fmt.Sprintf("%d steps, there may be %d; do more in one helper", len(r.Steps), mostSteps))
		return
	}
	helpers := c.helpers()
	r.StepsAt = make([]string, len(r.Steps))
	for i, text := range r.Steps {
		at := fmt.Sprintf("%s.steps[%d]", key, i)
		r.StepsAt[i] = g.where(at)
		s, err := ParseStep(text)
		if err != nil {
			g.problemAt(at, err.Error())
			continue
		}
		if !s.Helper {
			continue
		}
		asked[s.Name] = true
		if _, ok := helpers[s.Name]; ok {
			continue
		}
		if _, ok := c.Pools[s.Name]; ok {
			g.problemAt(at, fmt.Sprintf("pool %s has no helpers; write pools.%s.worker.kind: helper, or name another", s.Name, s.Name))
			continue
		}
		hint := ""
		if n := nearest(s.Name, slices.Collect(maps.Keys(helpers))); n != "" {
			hint = "; did you mean helper:" + n + "?"
		} else if hint = "; there is no pool of helpers"; len(helpers) > 0 {
			hint = "; there are " + strings.Join(slices.Sorted(maps.Keys(helpers)), ", ")
		}
		g.problemAt(at, fmt.Sprintf("there is no pool %q%s", s.Name, hint))
	}
}

// where is the place of a key, as a message begins with it.
func (g *loader) where(key string) string {
	p := g.places[key]
	if p.line == 0 {
		return p.source
	}
	return fmt.Sprintf("%s:%d:%d", p.source, p.line, p.column)
}

// stepsText says where each step of a route is done, and what bounds it.
func stepsText(c *Config, steps []string) string {
	var texts []string
	for _, text := range steps {
		s, _ := ParseStep(text) // it has been checked
		if !s.Helper {
			texts = append(texts, text+" ("+LayerCompute+", a permit)")
			continue
		}
		p := c.Pools[s.Name]
		number := p.Workers.String()
		if p.Workers.Auto() {
			number = "as many as there are cores"
		}
		texts = append(texts, fmt.Sprintf("%s (%s, %d at once for each of %s helpers, %d more wait)", text, LayerSync, p.Helper.Connections, number, p.Helper.MaxWaiting))
	}
	return strings.Join(texts, ", ")
}
