package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

const labRoutes = `lab: true
layers: {async: {max: 3}, sync: {pool: 1, max: 2}}
routes:
  /lab/wait: {layer: async, sleep: 1h}
  /lab/call: {block: 1h}
  /lab/wrong: {layer: compute, sleep: 30ms, class: control}
  /lab/hold: {layer: compute, sleep: 1h}
`

// waiting sends GET requests, each on a connection of its own, whose answers are not read: leave closes
// them.
func waiting(t *testing.T, url string, n int) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := fresh.Do(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// TestLayersAreSeen: what runs, waits and was refused on each layer is in the status and in the
// metrics; a crash of the worker ends the former two, and none of the last.
func TestLayersAreSeen(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: labRoutes, Admin: socket, Ops: "127.0.0.1:0"})
	url := operations(t, socket)
	seen := func(want ...admin.Layer) {
		t.Helper()
		var got []admin.Layer
		if testkit.Await(func() bool {
			got = status1(t, socket).Layers
			return fmt.Sprint(got) == fmt.Sprint(want)
		}) != nil {
			t.Fatalf("%+v, want %+v", got, want)
		}
		now := numbers(t, url)
		for _, l := range want {
			of := fmt.Sprintf("{layer=%q", l.Name)
			if r, w, f := now["preforkd_layer_requests"+of+`,state="running"}`], now["preforkd_layer_requests"+of+`,state="waiting"}`], now["preforkd_layer_requests_refused_total"+of+"}"]; r != float64(l.Running) || w != float64(l.Waiting) || f != float64(l.Refused) {
				t.Errorf("%s: metrics %v, %v, %v, status %+v", l.Name, r, w, f, l)
			}
		}
	}
	seen(admin.Layer{Name: "async"}, admin.Layer{Name: "sync"}, admin.Layer{Name: "compute"})
	leaveAsync, leaveSync, leaveCompute := waiting(t, s.URL+"/lab/wait", 3), waiting(t, s.URL+"/lab/call", 2), waiting(t, s.URL+"/lab/hold", 2)
	seen(admin.Layer{Name: "async", Running: 3}, admin.Layer{Name: "sync", Running: 1, Waiting: 1}, admin.Layer{Name: "compute", Running: 1, Waiting: 1})
	for path, says := range map[string]string{"/lab/wait": "layers.async.max", "/lab/call": "layers.sync.max"} {
		if status, body := get(t, s.URL+path); status != http.StatusServiceUnavailable || !strings.Contains(body, says) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	seen(admin.Layer{Name: "async", Running: 3, Refused: 1}, admin.Layer{Name: "sync", Running: 1, Waiting: 1, Refused: 1}, admin.Layer{Name: "compute", Running: 1, Waiting: 1})
	must(t, socket, []string{"status"}, "layers: async 3 running, 0 waiting, 1 refused; sync 1 running, 1 waiting, 1 refused; compute 1 running, 1 waiting, 0 refused")
	if status, _ := get(t, s.URL+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	kill(t, s.Workers()[0], syscall.SIGKILL)
	seen(admin.Layer{Name: "async", Refused: 1}, admin.Layer{Name: "sync", Refused: 1}, admin.Layer{Name: "compute"})
	leaveAsync()
	leaveSync()
	leaveCompute()
}

// TestWrongLayerIsNamed in the log, once, and by config check before anything runs.
func TestWrongLayerIsNamed(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: labRoutes})
	for range 3 {
		if status, body := get(t, s.URL+"/lab/wrong"); status != http.StatusOK {
			t.Errorf("%d %s", status, body)
		}
	}
	named := func() int { return strings.Count(s.LogText(), "on the compute layer: declare it sync") }
	if testkit.Await(func() bool { return named() > 0 }) != nil || !strings.Contains(s.LogText(), "route /lab/wrong waited 100 % of ") {
		t.Error("the log does not name it")
	}
	s.Signal(syscall.SIGTERM)
	if s.Wait(); named() != 1 {
		t.Errorf("named %d times", named())
	}
	out, code := run(t, filepath.Join(testkit.Programs(t), "preforkd"), "config", "check", "-c", s.Config)
	for _, want := range []string{
		"warning: routes./lab/wrong: it only waits, and holds a permit of the compute layer meanwhile, so that no inference runs; declare it sync",
		"route /lab/wait: async, as its layer says: on the connection's goroutine, 3 at once (layers.async.max)",
		"route /lab/call: sync, as it has no layer: when in doubt, sync: 1 at once (layers.sync.pool), 2 with those that wait (layers.sync.max)",
		"routes of models: compute, as inference is: ",
	} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("config check: %d, no %q in\n%s", code, want, out)
		}
	}
}

// TestRoutesDrain: a request to a route is in flight like any other: the service waits for it
// when it stops, and a reload that takes its route away does not end it.
func TestRoutesDrain(t *testing.T) {
	const short = "lab: true\nreload: {bake: 0s, trial: 0s}\nroutes:\n  /lab/wait: {layer: async, sleep: 300ms}\n"
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: short, Admin: socket})
	begun := func() chan string {
		answer := make(chan string, 1)
		go func() {
			status, body := get(t, s.URL+"/lab/wait")
			answer <- fmt.Sprint(status, " ", body)
		}()
		if testkit.Await(func() bool { return status1(t, socket).Layers[0].Running == 1 }) != nil {
			t.Fatal("no request runs")
		}
		return answer
	}
	answer := begun()
	write(t, s.Config, "reload: {bake: 0s, trial: 0s}\n")
	must(t, socket, []string{"reload"}, "routes./lab/wait: removed")
	if got := <-answer; !strings.HasPrefix(got, `200 {"route":"/lab/wait"`) {
		t.Errorf("during the reload: %s", got)
	}
	if status, _ := get(t, s.URL+"/lab/wait"); status != http.StatusNotFound {
		t.Errorf("the route is there: %d", status)
	}
	write(t, s.Config, short)
	must(t, socket, []string{"reload"}, "routes./lab/wait: new")
	answer = begun()
	s.Signal(syscall.SIGTERM)
	if got := <-answer; !strings.HasPrefix(got, "200 ") {
		t.Errorf("during the stop: %s", got)
	}
	if status := s.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}
