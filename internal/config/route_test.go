package config

import (
	"slices"
	"strings"
	"testing"
)

func TestRoutesThatCannotBe(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"without lab", "routes:\n  /x: {sleep: 1s}\n", "2:15: routes./x.sleep: only spends time, for experiments; set lab: true"},
		{"nothing", "lab: true\nroutes:\n  /x: {layer: sync}\n", "3:3: routes./x: does nothing"},
		{"two things", "lab: true\nroutes:\n  /x: {sleep: 1s, burn: 1s}\n", "routes./x: does sleep and burn at once"},
		{"task", "lab: true\nroutes:\n  /x: {sleep: 1s, layer: task}\n", `3:26: routes./x.layer: "task" has nobody to serve it`},
		{"no layer", "lab: true\nroutes:\n  /x: {sleep: 1s, layer: asinc}\n", "did you mean async?"},
		{"no class", "lab: true\nroutes:\n  /x: {sleep: 1s, class: all}\n", "infer, tasks, control or docs"},
		{"too long", "lab: true\nroutes:\n  /x: {sleep: 2h}\n", "is too large"},
		{"no path", "lab: true\nroutes:\n  x: {sleep: 1s}\n", "routes.x: is no path"},
		{"ours", "lab: true\nroutes:\n  /v2/x: {sleep: 1s}\n", "is a path of preforkd's own"},
		{"the page", "lab: true\nroutes:\n  /: {sleep: 1s}\n", "is a path of preforkd's own"},
		{"slash at the end", "lab: true\nroutes:\n  /x/: {sleep: 1s}\n", "has a part that is empty"},
		{"two dots", "lab: true\nroutes:\n  /x/../y: {sleep: 1s}\n", "has a part that is empty"},
		{"an escape", "lab: true\nroutes:\n  /x%41: {sleep: 1s}\n", "other characters than"},
		{"a long path", "lab: true\nroutes:\n  /" + strings.Repeat("x", 200) + ": {sleep: 1s}\n", "is longer than 200 bytes"},
		{"twice", "lab: true\nroutes:\n  /x: {sleep: 1s}\n  /x: {sleep: 2s}\n", "is set twice"},
		{"another program", "lab: true\nworker: {command: [node]}\nroutes:\n  /x: {sleep: 1s}\n", "is for our own worker"},
		{"of a pool", "lab: true\npools:\n  web:\n    routes: {/x: {sleep: 1s, layer: task}}\n", "pools.web.routes./x.layer"},
		{"a small max", "layers: {sync: {pool: 50, max: 40}}\n", "1:32: layers.sync.max: 40 is less than layers.sync.pool (50)"},
	} {
		_, err := Load(Sources{File: write(t, c.file), Explicit: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// TestRoutesSayTheirLayers: every route is named with its layer and why, and one on a layer that
// does not suit it is warned of.
func TestRoutesSayTheirLayers(t *testing.T) {
	l, err := Load(Sources{Explicit: true, File: write(t, `lab: true
routes:
  /doubt: {sleep: 1s}
  /wait: {sleep: 1s, layer: async}
  /wrong: {sleep: 1s, layer: compute}
  /frozen: {block: 1s, layer: async}
  /light: {burn: 10ms}
  /spin: {burn: 1s, layer: async}
layers: {async: {max: 7}}
pools:
  web: {listen: ["127.0.0.1:1"], routes: {/call: {block: 1s}}}
  bare: {}
`)})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"route /doubt: sync, as it has no layer: when in doubt, sync: 40 at once (layers.sync.pool), 1000 with those that wait (layers.sync.max)",
		"route /frozen: async, as its layer says: on the connection's goroutine, 7 at once (layers.async.max)",
		"route /light: sync, as it has no layer: when in doubt, sync: 40 at once (layers.sync.pool), 1000 with those that wait (layers.sync.max)",
		"route /spin: async, as its layer says: on the connection's goroutine, 7 at once (layers.async.max)",
		"route /wait: async, as its layer says: on the connection's goroutine, 7 at once (layers.async.max)",
		"route /wrong: compute, as its layer says: a permit each (concurrency.limit: auto), 1000 more wait (queue.max_requests)",
		"route /call of pool web: sync, as it has no layer: when in doubt, sync: 40 at once (layers.sync.pool), 1000 with those that wait (layers.sync.max)",
		"routes of models: compute, as inference is: a permit each (concurrency.limit: auto), 1000 more wait (queue.max_requests)",
	}
	if got := l.Routes(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for path, declare := range map[string]string{"/wrong": "sync", "/frozen": "sync", "/spin": "compute"} {
		if !slices.ContainsFunc(l.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "routes."+path+": it ") && strings.HasSuffix(w, "declare it "+declare)
		}) {
			t.Errorf("%s: %q", path, l.Warnings)
		}
	}
	if len(l.Warnings) != 3 {
		t.Errorf("%q", l.Warnings)
	}
	web := l.Config.ForPool("web")
	if web.Layers.Async.Max != 7 || len(web.Routes) != 1 || len(l.Config.ForPool("bare").Routes) != 0 {
		t.Errorf("%+v", web)
	}
}

// TestRoutesInDifferences: a reload says what it changes.
func TestRoutesInDifferences(t *testing.T) {
	before, after := Default(), Default()
	sleep := Route{Layer: LayerSync, Class: "infer", Sleep: 1e9}
	async := sleep
	async.Layer = LayerAsync
	before.Routes = map[string]Route{"/gone": sleep, "/other": sleep, "/same": sleep}
	after.Routes = map[string]Route{"/new": sleep, "/other": async, "/same": sleep}
	before.Pools = map[string]Pool{"web": {Routes: map[string]Route{"/x": sleep}}}
	after.Pools = map[string]Pool{"web": {}}
	want := []string{"routes./gone: removed", "routes./new: new", "routes./other.layer: sync -> async", "pools.web.routes./x: removed"}
	if got := Differences(before, before, after); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestTheGoldenRuleIsTheDefault: when in doubt take the thread pool.
func TestTheGoldenRuleIsTheDefault(t *testing.T) {
	var r Route
	setDefaults(reflectOf(&r), spec{})
	if r.Layer != LayerSync {
		t.Errorf("a route without a layer is %s", r.Layer)
	}
}
