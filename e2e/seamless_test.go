package e2e

import (
	"strings"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// TestReloadNobodyNotices reloads again and again under busy keep-alive clients: no
// request fails and no connection is closed.
func TestReloadNobodyNotices(t *testing.T) {
	const conns = 64
	s, socket := reloadable(t, testkit.Options{Set: []string{"http.worker_header=true"}})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	reloads := times(3, 50)
	for range reloads {
		answers(t, g, 200)
		if out, code := command(t, socket, "reload"); code != 0 {
			t.Fatalf("%d: %s", code, out)
		}
	}
	answers(t, g, 200)
	r := end()
	if r.Failures.Total() > 0 || r.Dials != conns || r.Closes != (load.Closes{}) {
		t.Errorf("%d reloads, %d requests: failures %v, %d dials, closes %+v; first: %+v",
			reloads, r.Requests, r.Failures, r.Dials, r.Closes, r.First[:min(len(r.First), 5)])
	}
	generations := map[string]bool{}
	for _, w := range r.Workers {
		generations[w.Name[strings.LastIndex(w.Name, "/")+1:]] = true
	}
	if len(generations) < 2*reloads {
		t.Errorf("only %d workers answered", len(generations))
	}
}
