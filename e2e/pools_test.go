package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// twoPools is a configuration with our worker in pool main and a Python server, with that
// wrong with it, in pool web at a unix socket.
func twoPools(path, socket, wrong string, size int) string {
	return fmt.Sprintf(`pools:
  web:
    listen: ["unix:%s"]
    workers: %d
    worker: {command: [%s, %s, %s, "{fd}", "{probe}"]}
    timeouts: {boot: 5s}
`, socket, size, python, path, wrong)
}

// TestPools: pools have sizes, states and metrics of their own, and one reload replaces all
// of them, or none.
func TestPools(t *testing.T) {
	path, dir := pythonServer(t), t.TempDir()
	web := filepath.Join(dir, "web.sock")
	s, socket := reloadable(t, testkit.Options{Config: twoPools(path, web, "fine", 1), Ops: "127.0.0.1:0"})
	st := status1(t, socket)
	if len(st.Pools) != 2 || st.Pools[0].Name != "main" || st.Pools[1].Name != "web" || st.Pools[1].Size != 1 || st.Pools[1].Slots[0].State != "ready" {
		t.Fatalf("%+v", st.Pools)
	}
	if got := overUnix(t, web); !strings.HasPrefix(got, "web 0 ") {
		t.Errorf("web answers %q", got)
	}
	g, end := storm(t, s, load.Options{Conns: 8, Keepalive: true})

	if out, code := command(t, socket, "scale", "3", "--pool", "web"); code != 0 || out != "pool web has 3 workers\n" {
		t.Errorf("%d: %s", code, out)
	}
	n := numbers(t, operations(t, socket))
	if n[`preforkd_pool_workers{pool="web"}`] != 3 || n[`preforkd_pool_workers{pool="main"}`] != 2 || n[`preforkd_workers{pool="web",state="ready"}`] != 3 {
		t.Errorf("metrics: %v", n)
	}
	if out, code := command(t, socket, "scale", "1", "--pool", "web"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := command(t, socket, "scale", "3", "--pool", "wbe"); code != int(ipc.ExitUsage) || !strings.Contains(out, `there is no pool "wbe"`) || !strings.Contains(out, "--pool web") {
		t.Errorf("%d: %s", code, out)
	}

	out, code := command(t, socket, "reload")
	if code != 0 || status1(t, socket).Generation != 2 {
		t.Errorf("%d: %s", code, out)
	}
	for _, p := range status1(t, socket).Pools {
		for _, sl := range p.Slots {
			if sl.Generation != 2 || sl.State != "ready" {
				t.Errorf("pool %s: %+v", p.Name, sl)
			}
		}
	}
	answers(t, g, 100)

	// The second pool's canary fails: the first one, whose new workers serve already, is put back.
	write(t, s.Config, twoPools(path, web, "exits", 1))
	out, code = command(t, socket, "reload")
	if code != int(ipc.ExitRolledBack) || !strings.Contains(out, "pool web: the canary did not become ready") || !strings.Contains(out, "cannot go on") {
		t.Errorf("%d: %s", code, out)
	}
	if st := status1(t, socket); st.Generation != 2 || len(st.Pools) != 2 || len(st.Pools[0].Slots) != 2 || st.Pools[0].Slots[0].Generation != 2 {
		t.Errorf("%+v", st.Pools)
	}
	if got := overUnix(t, web); !strings.HasPrefix(got, "web 0 ") {
		t.Errorf("web answers %q", got)
	}
	answers(t, g, 100)

	// A reload drops a pool and adds another one.
	other := filepath.Join(dir, "other.sock")
	write(t, s.Config, strings.Replace(twoPools(path, other, "fine", 2), "web:", "other:", 1))
	if out, code = command(t, socket, "reload"); code != 0 || !strings.Contains(out, "pools.web: removed") || !strings.Contains(out, "pools.other: new") {
		t.Errorf("%d: %s", code, out)
	}
	if st := status1(t, socket); len(st.Pools) != 2 || st.Pools[1].Name != "other" || len(st.Pools[1].Slots) != 2 {
		t.Errorf("%+v", st.Pools)
	}
	if got := overUnix(t, other); !strings.HasPrefix(got, "other ") {
		t.Errorf("other answers %q", got)
	}
	if r := end(); r.Failures.Total() > 0 || r.Dials != 8 {
		t.Errorf("clients of pool main: %v, %d dials", r.Failures, r.Dials)
	}
}

// TestPoolThatCannotStart ends the first start, though another pool could serve.
func TestPoolThatCannotStart(t *testing.T) {
	path := pythonServer(t)
	refuses(t, testkit.Options{Config: twoPools(path, filepath.Join(t.TempDir(), "web.sock"), "exits", 2)}, ipc.ExitBoot,
		"pool web: worker ended before it was ready", "cannot go on")
}

// TestPoolSettings: what is wrong with a pool is said with file and line.
func TestPoolSettings(t *testing.T) {
	for text, says := range map[string]string{
		"pools: {main: {workers: 2}}\n":                                                 "preforkd.yaml:1:9: pools.main: is the pool of the settings outside of pools; write them there",
		"pools:\n  Web: {workers: 2}\n":                                                 "preforkd.yaml:2:3: pools.Web: is no name of a pool",
		"pools:\n  web: {workers: 2}\n  web: {workers: 3}\n":                            "preforkd.yaml:3:3: pools.web: is set twice, first in line 2",
		"pools:\n  web: {wokers: 2}\n":                                                  "preforkd.yaml:2:9: pools.web.wokers: unknown key; did you mean workers?",
		"listen: [\"127.0.0.1:9\"]\npools:\n  web: {listen: [\"127.0.0.1:9\"]}\n":       `preforkd.yaml:3:18: pools.web.listen[0]: "127.0.0.1:9" is the same address as "127.0.0.1:9" in listen[0]`,
		"pools:\n  web: {worker: {kind: other}}\n":                                      `preforkd.yaml:2:24: pools.web.worker.kind: "other" needs a program`,
		"pools:\n  web: {worker: {command: [/bin/cat], live: probe}}\n":                 `preforkd.yaml:2:45: pools.web.worker.live: "probe" needs a socket that only the probed worker serves`,
		"worker: {command: [/bin/cat], ready: probe}\nlisten: [\"unix:/tmp/nobody\"]\n": `preforkd.yaml:1:38: worker.ready: "probe" needs an address over TCP`,
	} {
		file := filepath.Join(t.TempDir(), "preforkd.yaml")
		write(t, file, text)
		out, code := run(t, filepath.Join(testkit.Programs(t), "preforkd"), "config", "check", "-c", file)
		if code != int(ipc.ExitConfig) || !strings.Contains(out, says) {
			t.Errorf("%s%d: %s", text, code, out)
		}
	}
}

// overUnix returns the answer to GET / at a unix socket.
func overUnix(t *testing.T, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	answer, err := client.Get("http://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v: %s", answer.StatusCode, err, body)
	}
	return string(body)
}

// TestPoolsOfOurWorker: a second pool of our own worker with models of its own. Each pool
// has a queue of connections: no client notices a reload or another size, and none ends up
// with a worker of the other pool, which has not its model.
func TestPoolsOfOurWorker(t *testing.T) {
	const conns = 16
	models, dir := t.TempDir(), t.TempDir()
	if err := os.CopyFS(filepath.Join(models, "digits-forest"), os.DirFS(filepath.Join(testkit.Root(t), "models", "digits-forest"))); err != nil {
		t.Fatal(err)
	}
	own := copyModels(t)
	if err := os.RemoveAll(filepath.Join(own, "digits-forest")); err != nil {
		t.Fatal(err)
	}
	forest := filepath.Join(dir, "forest.sock")
	config := fmt.Sprintf("pools:\n  forest: {listen: [\"unix:%s\"], workers: 2, models: %s}\n", forest, models)
	s, socket := reloadable(t, testkit.Options{Models: own, Config: config})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true, Request: load.Get("/v2/models/digits-cnn")})
	there, endThere := stormAt(t, "unix:"+forest, load.Options{Conns: conns, Keepalive: true, Request: load.Get("/v2/models/digits-forest")})
	for range times(2, 10) {
		for _, command1 := range [][]string{{"reload"}, {"scale", "3", "--pool", "forest"}, {"scale", "1", "--pool", "forest"}, {"scale", "2", "--pool", "forest"}} {
			if out, code := command(t, socket, command1...); code != 0 {
				t.Fatalf("%v: %d: %s", command1, code, out)
			}
			answers(t, g, 100)
			answers(t, there, 100)
		}
	}
	untouched(t, end(), conns)
	untouched(t, endThere(), conns)
	out, code := command(t, socket, "models")
	if code != 0 || !strings.Contains(out, "digits-forest") || !strings.Contains(out, "digits-cnn") {
		t.Errorf("%d: %s", code, out)
	}
}
