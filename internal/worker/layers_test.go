package worker

import (
	"strings"
	"testing"

	"preforkd/internal/config"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/api"
	"preforkd/internal/worker/lab"
)

// TestOwnPathsAreReserved: no route of the settings can have a path that the worker answers by itself,
// now or when its models are others.
func TestOwnPathsAreReserved(t *testing.T) {
	for _, path := range api.OwnPaths() {
		for _, p := range []string{path, path + "/more"} {
			p = strings.NewReplacer("{", "", "}", "", ":", "-").Replace(p)
			if p == "//more" { // the page has nothing below it
				continue
			}
			if why := config.BadPath(p); !strings.Contains(why, "preforkd's own") {
				t.Errorf("%s may be a route: %q", p, why)
			}
		}
	}
}

// TestRoutesOfTheSettings: layer, class and what they do arrive.
func TestRoutesOfTheSettings(t *testing.T) {
	w := &worker{}
	w.cfg.Routes = map[string]config.Route{
		"/a": {Layer: config.LayerAsync, Class: "docs", Sleep: 1}, "/b": {Layer: config.LayerSync, Class: "infer", Block: 2},
		"/c": {Layer: config.LayerCompute, Class: "control", Burn: 3},
	}
	want := []api.Route{
		{Path: "/a", Layer: api.Async, Class: "docs", Lab: &api.Lab{Kind: lab.Sleep, Time: 1}},
		{Path: "/b", Layer: api.Sync, Class: "infer", Lab: &api.Lab{Kind: lab.Block, Time: 2}},
		{Path: "/c", Layer: api.Compute, Class: "control", Lab: &api.Lab{Kind: lab.Burn, Time: 3}},
	}
	got := w.routes()
	for i := range want {
		if i >= len(got) || got[i].Path != want[i].Path || got[i].Layer != want[i].Layer || got[i].Class != want[i].Class || *got[i].Lab != *want[i].Lab {
			t.Errorf("got %+v, want %+v", got, want)
			break
		}
	}
	if o := w.layers(); o.Async != 1000 || o.Sync != 40 || o.Waiting != 960 { // of settings that know no layers
		t.Errorf("%+v", o)
	}
	for l, i := range placesOf {
		if scoreboard.LayerNames[i] != api.Layer(l).String() || layersOf[api.Layer(l).String()] != api.Layer(l) {
			t.Errorf("layer %d is %s here and %s on the scoreboard", l, api.Layer(l), scoreboard.LayerNames[i])
		}
	}
}
