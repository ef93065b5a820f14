package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// TestReloadNobodyNotices reloads again and again under busy keep-alive clients: no
// request fails and no connection is closed.
func TestReloadNobodyNotices(t *testing.T) {
	const conns = 64
	s, socket := reloadable(t, testkit.Options{Set: []string{"http.worker_header=true"}})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true, Timeout: testkit.Limit})
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
	if len(generations) <= reloads { // of each generation one at least; the other may not have got a connection before the next reload
		t.Errorf("only %d workers answered in %d reloads", len(generations), reloads)
	}
}

// TestReloadManyConnections reloads again and again under connections that mostly wait: all
// of them move, and none is closed.
func TestReloadManyConnections(t *testing.T) {
	conns, reloads := times(300, 2000), times(3, 40)
	descriptorsFor(t, conns)
	f := begin(t, testkit.Options{}, quick)
	g, end := f.load(load.Options{Conns: conns, Think: time.Second})
	for range reloads {
		f.reload().end(0)
		answers(t, g, uint64(conns))
	}
	r := end()
	f.noticed(r, conns)
	if len(r.Workers) <= reloads {
		t.Errorf("only %d workers answered in %d reloads", len(r.Workers), reloads)
	}
}

// descriptorsFor demands that a process may have so many connections and what else it needs.
// Go and the step that starts workers raise the soft limit to the hard one.
func descriptorsFor(t *testing.T, conns int) {
	t.Helper()
	const besides = 200
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < uint64(conns+besides) {
		t.Fatalf("%d connections need ulimit -Hn %d, it is %d", conns, conns+besides, limit.Max)
	}
}
