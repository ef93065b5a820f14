package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// controlled starts a service whose models may be changed, and which has two workers.
func controlled(t *testing.T, o testkit.Options, set ...string) *site {
	t.Helper()
	f := lay(t)
	o.Set = append(append(append(o.Set, quickReload...), "models.control=explicit", "worker.max_backoff=1ms", "worker.max_crashes=1000"), set...)
	f.start(o, "")
	return f
}

// version writes a version of a model whose content is that of the digits, and its own.
func (f *site) version(model string, n int) {
	f.t.Helper()
	dir := filepath.Join(f.models, model, strconv.Itoa(n))
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(testkit.Root(f.t), "models/digits/1"))); err != nil {
		f.t.Fatal(err)
	}
	write(f.t, filepath.Join(dir, "README"), fmt.Sprintf("%s, version %d", model, n)) // another digest
}

// everywhere returns what every worker of the main pool says of a model: its version, or "-"
// where it has none. It asks until each of them has answered.
func (f *site) everywhere(model string) string {
	f.t.Helper()
	said := map[int]string{}
	if testkit.Await(func() bool {
		var pids []int
		for _, s := range status1(f.t, f.socket).Pools[0].Slots {
			if s.State != "ready" {
				return false
			}
			pids = append(pids, s.PID)
		}
		for range 8 * len(pids) {
			resp, err := fresh.Post(f.URL+"/v2/models/"+model+"/infer", "application/json", bytes.NewReader(slowBody(f.t, 1)))
			if err != nil {
				return false
			}
			var answer struct {
				Version string `json:"model_version"`
			}
			err = json.NewDecoder(resp.Body).Decode(&answer)
			resp.Body.Close()
			switch pid := pidOf(resp.Header.Get("X-Preforkd-Worker")); {
			case err != nil || resp.StatusCode != 200 && resp.StatusCode != 404:
				f.t.Fatalf("%s: %d, %v", model, resp.StatusCode, err)
			case resp.StatusCode == 404:
				said[pid] += "-"
			default:
				said[pid] += answer.Version
			}
		}
		return !slices.ContainsFunc(pids, func(pid int) bool { return said[pid] == "" })
	}) != nil {
		f.t.Fatal("not every worker answers")
	}
	all := map[string]bool{}
	for _, text := range said {
		for _, one := range strings.Split(text, "") {
			all[one] = true
		}
	}
	var list []string
	for one := range all {
		list = append(list, one)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// everyWorker demands it.
func (f *site) everyWorker(model, want string) {
	f.t.Helper()
	if got := f.everywhere(model); got != want {
		f.t.Errorf("model %s: workers serve %q, want %q", model, got, want)
	}
}

// ask sends a load or an unload over HTTP.
func (f *site) order(model, verb, body string) (int, string) {
	f.t.Helper()
	return post(f.t, f.URL+"/v2/repository/models/"+model+"/"+verb, body)
}

var versionSaid = regexp.MustCompile(`"model_version":"(\d+)"`)

// TestModelsChangeUnderLoad loads one version after the other, by command and over HTTP, under
// load: nothing fails, no client meets an older version after a newer one, and when the
// answer is there every worker serves what was loaded.
func TestModelsChangeUnderLoad(t *testing.T) {
	f := controlled(t, testkit.Options{})
	f.version("other", 1)
	must(t, f.socket, []string{"models", "load", "other"}, "model other: version 1 is served by 2 workers")
	bodyOf := func() []byte {
		return load.Post("/v2/models/other/infer", "application/json", slowBody(t, 1))
	}
	g, end := f.load(load.Options{Conns: 16, Think: think})
	var mu sync.Mutex
	last, seen := 0, map[int]bool{}
	ofOther, endOther := storm(t, f.Service, load.Options{
		Conns: 1, Think: think, Keepalive: true, Request: bodyOf(), Timeout: testkit.Limit,
		Check: func(_ int, body []byte) error {
			m := versionSaid.FindSubmatch(body)
			if m == nil {
				return fmt.Errorf("no version in %s", body)
			}
			n, _ := strconv.Atoi(string(m[1]))
			mu.Lock()
			defer mu.Unlock()
			if n < last {
				return fmt.Errorf("version %d after %d", n, last)
			}
			last, seen[n] = n, true
			return nil
		},
	})
	n := times(6, 60)
	for v := 2; v <= n; v++ {
		f.version("other", v)
		if v%2 == 0 {
			must(t, f.socket, []string{"models", "load", "other"}, fmt.Sprintf("model other: version %d is served by 2 workers", v))
		} else if status, body := f.order("other", "load", `{"parameters":{}}`); status != 200 || body != "" {
			t.Fatalf("%d %s", status, body)
		}
		if v < 10 {
			f.everyWorker("other", strconv.Itoa(v))
		}
		answers(t, ofOther, 4)
		answers(t, g, 64)
	}
	r := endOther()
	untouched(t, r, 1)
	mu.Lock()
	if len(seen) != n {
		t.Errorf("the client met %d of %d versions", len(seen), n)
	}
	mu.Unlock()
	for range times(5, 50) {
		if status, body := f.order("other", "unload", ""); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		f.everyWorker("other", "-")
		if status, body := post(t, f.URL+"/v2/repository/index", ""); status != 200 ||
			!strings.Contains(body, fmt.Sprintf(`{"name":"other","version":"%d","state":"UNAVAILABLE","reason":"unloaded"}`, n)) {
			t.Errorf("%d %s", status, body)
		}
		if _, text := get(t, f.URL+"/openapi.json"); strings.Contains(text, "/v2/models/other") {
			t.Error("openapi.json has a model that is not served")
		}
		must(t, f.socket, []string{"models", "load", "other"})
		if _, text := get(t, f.URL+"/openapi.json"); !strings.Contains(text, "/v2/models/other") {
			t.Error("openapi.json has not got the model")
		}
	}
	f.noticed(end(), 16)
}

// TestModelsAreRefused: whatever is wrong is said, and what was served is served.
func TestModelsAreRefused(t *testing.T) {
	f := controlled(t, testkit.Options{}, "models.max_upload=64KiB")
	good := filepath.Join(testkit.Root(t), "models/digits/1/model.onnx")
	for name, text := range map[string]string{"corrupt": "no model", "empty": "", "wrong": ""} {
		if err := os.MkdirAll(filepath.Join(f.models, name, "1"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(f.models, name, "1", "model.onnx"), text)
	}
	if err := os.MkdirAll(filepath.Join(f.models, "huge/1"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.models, "huge/1/model.onnx"), "x")
	if err := os.Truncate(filepath.Join(f.models, "huge/1/model.onnx"), 1<<40); err != nil { // it has holes
		t.Fatal(err)
	}
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.models, "wrong/1/model.onnx"), string(data))
	write(t, filepath.Join(f.models, "wrong/warmup.json"), `[{"request":`+string(slowBody(t, 1))+`,"outputs":{"label":[11]}}]`)
	f.version("settings", 1)
	write(t, filepath.Join(f.models, "settings/config.yaml"), "versoin: 1\n")
	large := filepath.Join(t.TempDir(), "model.onnx")
	write(t, large, strings.Repeat("x", 200<<10))
	g, end := f.load(load.Options{Conns: 8, Think: think})
	for _, x := range []struct {
		args   []string
		status int
		words  string
		http   int // the same over HTTP; 0: it is not to be had there
		answer string
	}{
		{[]string{"load", "none"}, ipc.ExitUsage, "there is no such model", 404, "Request for unknown model: 'none' is not found"},
		{[]string{"unload", "none"}, ipc.ExitUsage, "there is no such model", 404, "Request for unknown model: 'none' is not found"},
		{[]string{"load", "corrupt"}, ipc.ExitRolledBack, "it is no ONNX model, or a part of one", 400, "it is no ONNX model"},
		{[]string{"load", "empty"}, ipc.ExitRolledBack, "the file is empty", 400, "the file is empty"},
		{[]string{"load", "wrong"}, ipc.ExitRolledBack, "expected is 11", 400, "expected is 11"},
		{[]string{"load", "huge"}, ipc.ExitTryAgain, "it may need 4096.0 GiB in 2 workers", 503, "it may need 4096.0 GiB in 2 workers"},
		{[]string{"load", "settings"}, ipc.ExitConfig, "config.yaml:1:1: versoin: unknown key", 400, "versoin"},
		{[]string{"unload", "digits"}, ipc.ExitConfig, "predict.model", 400, "predict.model"},
		{[]string{"load", "digits", "--version", "7"}, ipc.ExitConfig, "version: 7 is not there, only 1", 0, ""},
		{[]string{"load", "digits", "--pool", "x"}, ipc.ExitUsage, `there is no pool "x"`, 0, ""},
		{[]string{"load", "../models/digits"}, ipc.ExitUsage, "no such path", 0, ""},
		{[]string{"load", ".."}, ipc.ExitUsage, "is no name of a model", 0, ""},
		{[]string{"load"}, ipc.ExitUsage, "needs one model", 0, ""},
		{[]string{"load", "big", "--file", large}, ipc.ExitUsage, "more than models.max_upload, which is 65536 bytes", 0, ""},
		{[]string{"load", "big", "--file", filepath.Join(f.models, "none")}, ipc.ExitUsage, "no such file", 0, ""},
		{[]string{"load", "up", "--file", good, "--file", good}, ipc.ExitUsage, "is there twice", 0, ""},
		{[]string{"load", "up", "--file", good, "--version", "01"}, ipc.ExitUsage, "no whole number from 1 on", 0, ""},
		{[]string{"load", "up", "--file", filepath.Join(f.models, "wrong/warmup.json")}, ipc.ExitUsage, "none of them is of the model itself", 0, ""},
		{[]string{"load", "up", "--file", filepath.Join(f.models, "corrupt/1/model.onnx")}, ipc.ExitRolledBack, "from uploaded/up/1/model.onnx: it is no ONNX model", 0, ""},
	} {
		ends(t, f.socket, append([]string{"models"}, x.args...), x.status, x.words)
		if x.http == 0 {
			continue
		}
		var answer struct{ Error string }
		status, body := f.order(x.args[1], x.args[0], "")
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != x.http || !strings.Contains(answer.Error, x.answer) {
			t.Errorf("%v over HTTP: %d %s, want %d %s", x.args, status, body, x.http, x.answer)
		}
	}
	for _, body := range []string{`{"parameters":{"file:1/model.onnx":"AAAA"}}`, `{"parameters":{"config":"{}"}}`} {
		if status, text := f.order("digits", "load", body); status != http.StatusForbidden || !strings.Contains(text, "taken by the admin socket only") {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	for body, words := range map[string]string{`{`: "unexpected end", `[]`: "array is out of place"} {
		if status, text := f.order("digits", "load", body); status != http.StatusBadRequest || !strings.Contains(text, words) {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	answers(t, g, 64)
	f.noticed(end(), 8)
	must(t, f.socket, []string{"models", "load", "up", "--file", good, "--json"}, `"exit":0`, `"versions":["1"]`, `"workers":2`)
	f.everyWorker("up", "1")
	must(t, f.socket, []string{"models", "ls"}, "digits", "up", "square")
	if left, _ := filepath.Glob(filepath.Join(testkit.Root(t), ".cache/test-models/models/.new-*/up")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestModelControlIsOff: who may change models is a setting, which every refusal names.
func TestModelControlIsOff(t *testing.T) {
	f := controlled(t, testkit.Options{}, "models.control=none")
	ends(t, f.socket, []string{"models", "load", "square"}, ipc.ExitPermission, "models.control is none")
	ends(t, f.socket, []string{"models", "load", "square", "--file", filepath.Join(f.models, "square/1/model.onnx")}, ipc.ExitPermission, "models.control is none")
	for setting, command := range map[string]int{"none": ipc.ExitPermission, "admin": 0} {
		if setting == "admin" {
			f.stopAndStart("models.control=admin")
		}
		ends(t, f.socket, []string{"models", "unload", "square"}, command)
		for _, verb := range []string{"load", "unload"} {
			if status, body := f.order("square", verb, ""); status != http.StatusForbidden || !strings.Contains(body, "models.control: "+setting) {
				t.Errorf("%s: %d %s", setting, status, body)
			}
		}
	}
}

// stopAndStart starts the service of f anew.
func (f *site) stopAndStart(set ...string) {
	f.t.Helper()
	f.Signal(syscall.SIGTERM)
	f.Wait()
	f.start(testkit.Options{Set: append(append([]string{}, quickReload...), set...)}, "")
}

// TestModelsOutliveProcesses: a worker and a supervisor that die are replaced with what was
// loaded, and a rollback returns to it; a reload reads the directory.
func TestModelsOutliveProcesses(t *testing.T) {
	f := controlled(t, testkit.Options{})
	f.version("other", 1)
	f.version("other", 2)
	must(t, f.socket, []string{"models", "load", "other", "--version", "1"})
	must(t, f.socket, []string{"models", "load", "up", "--file", filepath.Join(f.models, "other/1/model.onnx")})
	must(t, f.socket, []string{"models", "unload", "square"})
	as := func(other, up, square string) {
		t.Helper()
		f.everyWorker("other", other)
		f.everyWorker("up", up)
		if out := must(t, f.socket, []string{"models", "ls"}); strings.Contains(out, "square") != (square != "-") {
			t.Errorf("%s", out)
		}
	}
	as("1", "1", "-")
	for _, pid := range f.Workers() {
		kill(t, pid, syscall.SIGKILL)
	}
	if err := testkit.Await(func() bool { return allReady(status1(t, f.socket)) }); err != nil {
		t.Fatal(err)
	}
	f.intact()
	as("1", "1", "-")
	killSupervisor(t, f.Service, f.socket)
	as("1", "1", "-")
	must(t, f.socket, []string{"models", "load", "other"}, "version 2 is served by 2 workers")
	as("2", "1", "-")
	must(t, f.socket, []string{"reload"}, "model square: new", "model up: removed")
	as("2", "-", "1")
	must(t, f.socket, []string{"rollback"})
	as("2", "1", "-")
}

// TestModelsAreWatched: what appears is loaded once it is whole, a bad one is tried once, and
// what operators have unloaded stays so.
func TestModelsAreWatched(t *testing.T) {
	f := controlled(t, testkit.Options{}, "models.watch=100ms", "models.control=admin")
	events := f.events()
	change := func(words string) {
		t.Helper()
		events.await(words, func(e admin.Event) bool { return e.Kind == "models" && strings.Contains(e.Text, words) })
	}
	must(t, f.socket, []string{"models", "unload", "square"})
	aside := filepath.Join(f.models, ".other")
	if err := os.CopyFS(filepath.Join(aside, "1"), os.DirFS(filepath.Join(f.models, "digits/1"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(aside, filepath.Join(f.models, "other")); err != nil {
		t.Fatal(err)
	}
	change("model other: version 1 is served by 2 workers")
	f.everyWorker("other", "1")
	f.version("other", 2)
	change("model other: version 2 is served by 2 workers")
	f.everyWorker("other", "2")
	if err := os.MkdirAll(filepath.Join(f.models, "bad/1"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.models, "bad/1/model.onnx"), "no model")
	change("load model bad: ")
	f.version("other", 3) // looks enough for another try
	change("model other: version 3 is served by 2 workers")
	f.version("other", 4)
	change("model other: version 4 is served by 2 workers")
	if n := strings.Count(must(t, f.socket, []string{"events"}), "load model bad: "); n != 1 {
		t.Errorf("tried %d times", n)
	}
	if err := os.Remove(filepath.Join(f.models, "bad/1/model.onnx")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(f.models, "bad/1"), os.DirFS(filepath.Join(f.models, "digits/1"))); err != nil {
		t.Fatal(err)
	}
	change("model bad: version 1 is served by 2 workers")
	if out := must(t, f.socket, []string{"models"}); strings.Contains(out, "square") {
		t.Errorf("what was unloaded is served again:\n%s", out)
	}
}

// TestALoadOutlastsTheRequestClock: a client that loads waits as long as it takes, with the others
// answered meanwhile.
func TestALoadOutlastsTheRequestClock(t *testing.T) {
	f := lay(t)
	wait := newGate(t)
	f.start(testkit.Options{Set: append([]string{"models.control=explicit", "timeouts.request=200ms"}, quickReload...)}, gated(t, wait, "2"))
	f.version("other", 1)
	g, end := f.load(load.Options{Conns: 1, Think: 5 * time.Millisecond})
	type answer struct {
		status int
		body   string
	}
	answered := make(chan answer, 1)
	go func() {
		status, body := f.order("other", "load", "")
		answered <- answer{status, body}
	}()
	f.worker(1, 2)
	answers(t, g, 200) // a second, at least
	select {
	case a := <-answered:
		t.Errorf("%+v before the model was tried", a)
	default:
	}
	wait.open()
	if a := <-answered; a.status != 200 {
		t.Errorf("%+v", a)
	}
	f.everyWorker("other", "1")
	f.noticed(end(), 1)
}
