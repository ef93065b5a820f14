package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Layers is the section of how many requests of routes a worker has at once. Those of the layer
// compute are bounded as inference is: by Concurrency and Queue.
type Layers struct {
	Async AsyncLayer `yaml:"async"`
	Sync  SyncLayer  `yaml:"sync"`
}

// AsyncLayer is the section of requests that wait on their connection's goroutine.
type AsyncLayer struct {
	// Max is how many there may be; more are refused.
	Max int `yaml:"max" default:"1000" check:"1..1000000"`
}

// SyncLayer is the section of requests that block a thread while they run.
type SyncLayer struct {
	// Pool is how many run at once: 40 as in Starlette's pool of threads.
	Pool int `yaml:"pool" default:"40" check:"1..10000"`
	// Max is how many run and wait together; more are refused.
	Max int `yaml:"max" default:"1000" check:"1..1000000"`
}

// Route is one path of Config.Routes. What it does is said by exactly one of its keys beside
// Layer and Class.
type Route struct {
	// Layer is where that is done: LayerAsync, LayerSync or LayerCompute. LayerTask is a word of
	// this setting that nobody serves yet.
	Layer string `yaml:"layer" default:"sync" check:"async|sync|compute|task"`
	// Class is who may ask: a class of Auth.
	Class string `yaml:"class" default:"infer" check:"infer|tasks|control|docs"`

	// What routes of the lab do, for so long: wait without holding a thread, block a thread, use
	// a core.
	Sleep time.Duration `yaml:"sleep" default:"0s" check:"0s|1ms..1h"`
	Block time.Duration `yaml:"block" default:"0s" check:"0s|1ms..1h"`
	Burn  time.Duration `yaml:"burn" default:"0s" check:"0s|1ms..1h"`

	// Proxy has another HTTP service answer; Features runs a model on rows that a store holds.
	Proxy    ProxyRoute `yaml:"proxy" print:"set"`
	Features Features   `yaml:"features" print:"set"`
	// CORS lets pages of other origins use the route.
	CORS CORS `yaml:"cors" print:"set"`

	// At is where the route is written, for messages of whoever finds only later that it cannot be.
	At string `yaml:"-" json:"at,omitempty"`
	// Steps take the request's body through helpers and models, each "helper:POOL[/MODEL]" or
	// "model:NAME[/VERSION]"; see Step.
	Steps []string `yaml:"steps"`
	// StepsAt is where each of Steps was set, such as preforkd.yaml:12:20. It is no setting.
	StepsAt []string
}

// Values of Route.Layer.
const (
	LayerAsync   = "async"
	LayerSync    = "sync"
	LayerCompute = "compute"
	LayerTask    = "task"
)

// kinds are what a route may do, by the key that says it.
func (r *Route) kinds() (keys []string) {
	for _, k := range []struct {
		key string
		set bool
	}{{"sleep", r.Sleep > 0}, {"block", r.Block > 0}, {"burn", r.Burn > 0}, {"proxy", r.Proxy.Set()}, {"features", r.Features.Set()}, {"steps", len(r.Steps) > 0}} {
		if k.set {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// reserved are the first parts of the paths that a worker answers by itself.
var reserved = []string{"livez", "healthz", "readyz", "ping", "v1", "v2", "predict", "invocations", "openapi.json", "docs", "models", "tasks", "result"}

// maxRoutePath is the length of a route's path: it is part of log lines, and of a request's header.
const maxRoutePath = 200

// pathLetters are what a part of a path is made of.
const pathLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"

// BadPath says why no route may have that path; empty: it may.
func BadPath(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case !strings.HasPrefix(path, "/"):
		return "is no path; write one that begins with /, such as /prices"
	case len(path) > maxRoutePath:
		return fmt.Sprintf("is longer than %d bytes; write a shorter path", maxRoutePath)
	case path == "/" || slices.Contains(reserved, parts[0]):
		return "is a path of preforkd's own (docs/http.md has them all); write another"
	case slices.ContainsFunc(parts, func(p string) bool { return p == "" || p == "." || p == ".." || strings.Trim(p, pathLetters) != "" }):
		return "has a part that is empty, . or .., or has other characters than letters, digits and -._~; write another path"
	}
	return ""
}

// checkRoutes reports routes of a pool that cannot be, and says which are on a layer that does
// not suit them.
func (g *loader) checkRoutes(pool string, c *Config) (warnings []string) {
	if s := c.Layers.Sync; s.Max < s.Pool {
		g.problemAt(PoolKey(pool, "layers.sync.max"), fmt.Sprintf("%d is less than layers.sync.pool (%d), which it counts as well; raise it", s.Max, s.Pool))
	}
	for _, path := range slices.Sorted(maps.Keys(c.Routes)) {
		r, key := c.Routes[path], PoolKey(pool, "routes."+path)
		if bad := BadPath(path); bad != "" {
			g.problemAt(key, bad)
			continue
		}
		kinds := r.kinds()
		switch {
		case c.Worker.Other():
			g.problemAt(key, "is for our own worker, which "+PoolKey(pool, "worker.command")+" replaces; remove the route")
		case len(kinds) == 0:
			g.problemAt(key, "does nothing; write what it does: proxy, features or steps; sleep, block or burn, each with a duration")
		case len(kinds) > 1:
			g.problemAt(key, "does "+strings.Join(kinds, " and ")+" at once; write one of them, and a route for each other")
		case r.Layer == LayerTask:
			g.problemAt(key+".layer", `"task" has nobody to serve it: this version has no queue of background tasks; write sync, or compute`)
		case r.Proxy.Set():
			warnings = append(warnings, prefixed(key, g.checkProxy(key, &r, c))...)
		case r.Features.Set():
			warnings = append(warnings, prefixed(key, g.checkFeatures(key, &r, c))...)
		case !c.Lab && len(r.Steps) == 0:
			g.problemAt(key+"."+kinds[0], "only spends time, for experiments; set lab: true, or remove the route")
		}
		g.checkCORS(key, &r.CORS)
		if w := unsuited(&r); w != "" {
			warnings = append(warnings, key+": "+w)
		}
		if p := g.places[key]; p.line > 0 {
			r.At = fmt.Sprintf("%s:%d", p.source, p.line)
			c.Routes[path] = r // the map is the settings' own
		}
	}
	return warnings
}

// prefixed are warnings about the setting key.
func prefixed(key string, warnings []string) []string {
	for i, w := range warnings {
		if strings.HasPrefix(w, "it ") {
			warnings[i] = key + ": " + w
		}
	}
	return warnings
}

// heavy is from when on CPU time is worth a permit of its own.
const heavy = 50 * time.Millisecond

// unsuited says why a route's layer does not suit what it does; empty: it does.
func unsuited(r *Route) string {
	switch wait := max(r.Sleep, r.Block); {
	case r.Layer == LayerCompute && wait > 0:
		return "it only waits, and holds a permit of the compute layer meanwhile, so that no inference runs; declare it " + LayerSync
	case r.Layer == LayerAsync && r.Block > 0:
		return "it blocks a thread, and nothing but layers.async.max bounds how many; declare it " + LayerSync
	case r.Layer != LayerCompute && r.Burn >= heavy:
		return fmt.Sprintf("it uses a core for %s, and on the layer %s nothing keeps it from doing so beside everybody else; declare it %s",
			durationText(r.Burn), r.Layer, LayerCompute)
	}
	return ""
}

// Routes says of each route on which layer it is, and why.
func (l *Loaded) Routes() (lines []string) {
	for _, pool := range l.Config.PoolNames() {
		c := l.Config.ForPool(pool)
		of := ""
		if pool != MainPool {
			of = " of pool " + pool
		}
		for _, path := range slices.Sorted(maps.Keys(c.Routes)) {
			r, why := c.Routes[path], "as its layer says"
			if len(r.Steps) > 0 {
				lines = append(lines, fmt.Sprintf("route %s%s: %s", path, of, stepsText(&l.Config, r.Steps)))
				continue
			}
			if l.Origins[PoolKey(pool, "routes."+path+".layer")] == "" {
				why = "as it has no layer: when in doubt, sync"
			}
			lines = append(lines, fmt.Sprintf("route %s%s: %s, %s: %s", path, of, r.Layer, why, bound(c, r.Layer)))
		}
	}
	if len(lines) > 0 {
		lines = append(lines, "routes of models: "+LayerCompute+", as inference is: "+bound(&l.Config, LayerCompute))
	}
	return lines
}

// bound says what bounds the requests of a layer in a worker.
func bound(c *Config, layer string) string {
	switch layer {
	case LayerAsync:
		return fmt.Sprintf("on the connection's goroutine, %d at once (layers.async.max)", c.Layers.Async.Max)
	case LayerSync:
		return fmt.Sprintf("%d at once (layers.sync.pool), %d with those that wait (layers.sync.max)", c.Layers.Sync.Pool, c.Layers.Sync.Max)
	}
	return fmt.Sprintf("a permit each (concurrency.limit: %s), %d more wait (queue.max_requests)", c.Concurrency.Limit, c.Queue.MaxRequests)
}
