package worker

import (
	"cmp"
	"maps"
	"slices"

	"preforkd/internal/config"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/api"
	"preforkd/internal/worker/lab"
)

// layersOf are api's layers by what the settings call them, places those of the scoreboard.
var (
	layersOf = map[string]api.Layer{config.LayerAsync: api.Async, config.LayerSync: api.Sync, config.LayerCompute: api.Compute}
	placesOf = [api.Layers]int{api.Async: scoreboard.LayerAsync, api.Sync: scoreboard.LayerSync, api.Compute: scoreboard.LayerCompute}
)

// routes are those of the settings.
func (w *worker) routes() (routes []api.Route) {
	for _, path := range slices.Sorted(maps.Keys(w.cfg.Routes)) {
		r := w.cfg.Routes[path]
		own := api.Route{Path: path, Layer: layersOf[r.Layer], Class: r.Class, CORS: corsOf(&r.CORS)}
		switch {
		case r.Proxy.Set():
			own.Proxy = proxyOf(path, &r.Proxy)
		case r.Features.Set():
			own.Features = featuresOf(&r)
		default:
			if own.Steps = stepsOf(&r, config.PoolKey(w.pool, "routes."+path)); own.Steps == nil {
				own.Lab = labOf(&r)
			}
		}
		routes = append(routes, own)
	}
	return routes
}

// labOf is what a route of the lab does.
func labOf(r *config.Route) *api.Lab {
	switch {
	case r.Block > 0:
		return &api.Lab{Kind: lab.Block, Time: r.Block}
	case r.Burn > 0:
		return &api.Lab{Kind: lab.Burn, Time: r.Burn}
	}
	return &api.Lab{Kind: lab.Sleep, Time: r.Sleep}
}

// layers bounds them. The settings of an earlier version have no bounds: then its defaults hold.
func (w *worker) layers() api.LayerOptions {
	set, def := &w.cfg.Layers, config.Default().Layers
	pool, most := cmp.Or(set.Sync.Pool, def.Sync.Pool), cmp.Or(set.Sync.Max, def.Sync.Max)
	return api.LayerOptions{
		Async: cmp.Or(set.Async.Max, def.Async.Max), Sync: pool, Waiting: most - pool,
		Observe: w.observeLayer,
		Refused: func(l api.Layer) { w.row.Layers[placesOf[l]].Refused.Add(1) },
	}
}

// observeLayer brings this worker's row up to date with one layer.
func (w *worker) observeLayer(l api.Layer, running, waiting int) {
	if l == api.Sync {
		w.sync.holds(w, running, waiting)
		return
	}
	at := &w.row.Layers[placesOf[l]]
	at.Running.Set(int64(running))
	at.Waiting.Set(int64(waiting))
}

// misplaced tells operators of a route on the wrong layer.
func (w *worker) misplaced(path, why string) {
	w.log.Warn("route on the wrong layer", "route", path, "why", why)
}
