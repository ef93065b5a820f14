package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// number is a request to the model called divide.
func number(n int) string {
	return fmt.Sprintf(`{"inputs":[{"name":"n","shape":[1],"datatype":"INT64","data":[%d]}]}`, n)
}

// dividing starts a service whose model divide ends the process for n = 0. Its crash budget
// is the default one.
func dividing(t *testing.T) *site {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("skipped: a division by zero ends no process of this architecture")
	}
	f := lay(t)
	if err := os.MkdirAll(filepath.Join(f.models, "divide", "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.divide(deadly())
	write(t, filepath.Join(f.models, "divide", "warmup.json"), `[{"request":`+number(5)+`,"outputs":{"y":[20]}}]`)
	f.start(testkit.Options{Ops: "127.0.0.1:0", Set: quickReload}, "worker: {crash_window: 1h}\n")
	return f
}

func (f *site) divide(model []byte) {
	f.t.Helper()
	write(f.t, filepath.Join(f.models, "divide", "1", "model.onnx"), string(model))
}

// divided returns status and body of the answer for n; status 0: the connection ended.
func (f *site) divided(n int) (int, string) {
	f.t.Helper()
	resp, err := fresh.Post(f.URL+"/v2/models/divide/infer", "application/json", strings.NewReader(number(n)))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// model returns what preforkd models says of one.
func (f *site) model(name string) admin.Model {
	f.t.Helper()
	out, code := command(f.t, f.socket, "models", "--json")
	var models []admin.Model
	if err := json.Unmarshal([]byte(out), &models); err != nil || code != 0 {
		f.t.Fatalf("%d, %v: %s", code, err, out)
	}
	for _, m := range models {
		if m.Name == name {
			return m
		}
	}
	f.t.Fatalf("%s is not in %s", name, out)
	return admin.Model{}
}

// intact is whole, of processes that live: one that has ended may still be listed as ready.
func (f *site) intact() {
	f.t.Helper()
	if testkit.Await(func() bool {
		for _, s := range status1(f.t, f.socket).Pools[0].Slots {
			if s.State != "ready" || !testkit.Alive(s.PID) {
				return false
			}
		}
		return true
	}) != nil {
		f.t.Fatal("not every worker came back")
	}
}

// turns counts the requests that each client of a load has begun.
type turns []atomic.Uint64

// of makes a load count its requests.
func (c turns) of(o load.Options) load.Options {
	request := o.Request
	o.Request, o.Conns = nil, len(c)
	o.Each = func(dst []byte, client int, _ uint64) []byte {
		c[client].Add(1)
		return append(dst, request...)
	}
	return o
}

// round waits until every request that is under way has ended: each client has begun its
// next but one.
func (c turns) round(t *testing.T) {
	t.Helper()
	var goals []uint64
	for i := range c {
		goals = append(goals, c[i].Load()+2)
	}
	if testkit.Await(func() bool {
		for i := range c {
			if c[i].Load() < goals[i] {
				return false
			}
		}
		return true
	}) != nil {
		t.Fatal("a client goes no further")
	}
}

// deaths reads events until a model is quarantined, and returns the workers that had died
// of it by then.
func (h *happenings) deaths(model string) (pids []int, quarantine admin.Event) {
	h.t.Helper()
	quarantine = h.await("the quarantine", func(e admin.Event) bool {
		if e.Kind == "crash" && e.Model == model {
			pids = append(pids, e.PID)
		}
		return e.Kind == "quarantine"
	})
	return pids, quarantine
}

// TestQueryOfDeath has 4 of 32 clients send the request that ends a worker, in a loop. Its
// model is quarantined after three deaths. The others lose the connections that dead
// workers owned, and nothing afterwards.
func TestQueryOfDeath(t *testing.T) {
	const workers, good, bad = 2, 28, 4
	f := dividing(t)
	events := f.events()
	const words = `model "divide" version 1 is quarantined: 3 workers ended in the middle of its requests within 1h0m0s ` +
		`(the last: crash: exit status 2, SIGFPE: floating-point exception; request `
	request := fmt.Sprintf("%016x", xxhash.Sum64String(number(0)))

	goodTurns, badTurns := make(turns, good), make(turns, bad)
	g, end := f.load(goodTurns.of(load.Options{Request: sample, Think: think}))
	goodTurns.round(t)
	_, endBad := storm(t, f.Service, badTurns.of(load.Options{
		Request: load.Post("/v2/models/divide/infer", "application/json", []byte(number(0))),
		Think:   think, Keepalive: true, KeepFailures: everyFailure, Timeout: testkit.Limit, Status: http.StatusServiceUnavailable,
		Check: func(_ int, body []byte) error {
			var refusal struct{ Error string }
			if err := json.Unmarshal(body, &refusal); err != nil || !strings.HasPrefix(refusal.Error, words+request) ||
				!strings.Contains(refusal.Error, "preforkd models release divide") {
				return fmt.Errorf("%v: %s", err, body)
			}
			return nil
		},
	}))

	dead, quarantine := events.deaths("divide")
	if len(dead) != 3 || quarantine.Count != 3 || quarantine.Model != "divide" || quarantine.Version != "1" || quarantine.Request != request {
		t.Errorf("workers %v died; %+v", dead, quarantine)
	}
	badTurns.round(t)
	f.intact()
	goodTurns.round(t)
	before := g.Progress()
	answers(t, g, 10*good)
	after := g.Progress()
	if before.Failures != after.Failures || before.IdleCloses != after.IdleCloses {
		t.Errorf("after the quarantine: %v and %d closes, before: %v and %d", after.Failures, after.IdleCloses, before.Failures, before.IdleCloses)
	}

	m := f.model("divide")
	out, _ := command(t, f.socket, "events", "--json")
	dead = crashes(t, out, "divide")
	if n := len(dead); n < 3 || n > 3+workers-1 || m.Deaths != uint64(n) || m.State != admin.StateQuarantined || m.Request != request {
		t.Errorf("%d died, those of the last in a request that was under way: %+v", len(dead), m)
	}
	f.refuses(words + request)
	for series, want := range map[string]float64{
		`preforkd_model_quarantined{model="divide",version="1"}`:         1,
		`preforkd_model_quarantined{model="digits",version="1"}`:         0,
		`preforkd_model_worker_deaths_total{model="divide",version="1"}`: float64(len(dead)),
		`preforkd_model_worker_deaths_total{model="digits",version="1"}`: 0,
	} {
		if got, ok := numbers(t, operations(t, f.socket))[series]; got != want || !ok {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	badReport, report := endBad(), end()
	lostBy(t, "deadly", badReport, dead)
	lostBy(t, "other", report, dead)
	t.Logf("%d deaths; the others: %d answers, %v, %d idle connections closed", len(dead), report.Answers, report.Failures, report.Closes.Idle)
}

// crashes returns the workers that died of a model, of events as JSON.
func crashes(t *testing.T, events, model string) (pids []int) {
	t.Helper()
	for line := range strings.Lines(events) {
		var e admin.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Kind == "crash" && e.Model == model {
			pids = append(pids, e.PID)
		}
	}
	return pids
}

// lostBy demands that a load's clients lost nothing but connections, each to one of the
// dead workers, and no more than one to each.
func lostBy(t *testing.T, who string, r *load.Report, dead []int) {
	t.Helper()
	died := map[int]bool{}
	for _, pid := range dead {
		died[pid] = true
	}
	for _, f := range r.First {
		lost := f.Class == load.Unwritten || f.Class == load.Unanswered || f.Class == load.Partial
		// One that no worker has answered on yet has no name; it died with its worker all the same.
		if !lost || f.Answers > 0 && !died[pidOf(f.Worker)] {
			t.Errorf("%s client: %+v", who, f)
		}
	}
	for _, c := range r.Closed {
		if c.Worker != "" && !died[pidOf(c.Worker)] {
			t.Errorf("%s client: a connection of a living worker was closed: %+v", who, c)
		}
	}
	for _, c := range r.Conns {
		if c.Failures+c.IdleCloses > uint64(len(dead)) || c.Answers == 0 {
			t.Errorf("%s client: %d answers, %d connections lost to %d deaths", who, c.Answers, c.Failures+c.IdleCloses, len(dead))
		}
	}
}

// refuses demands that divide is refused with these words, that operators see it, and that
// nothing else is touched.
func (f *site) refuses(words string) {
	f.t.Helper()
	quoted, _ := json.Marshal(words)
	inner := strings.Trim(string(quoted), `"`)
	if status, body := f.divided(5); status != http.StatusServiceUnavailable || !strings.Contains(body, inner) {
		f.t.Errorf("a good request: %d: %s", status, body)
	}
	for path, want := range map[string]int{
		"/v2/models/divide/ready": 503, "/v2/models/divide/versions/1/ready": 503, "/v2/models/divide": 200,
		"/v2/models/digits/ready": 200, "/readyz": 200, "/v2/health/ready": 200,
	} {
		if status, body := get(f.t, f.URL+path); status != want {
			f.t.Errorf("%s: %d: %s", path, status, body)
		}
	}
	if status, body := post(f.t, f.URL+"/predict/divide", `{"features":[5]}`); status != http.StatusServiceUnavailable {
		f.t.Errorf("/predict/divide: %d: %s", status, body)
	}
	for _, args := range [][]string{{"status"}, {"models"}} {
		if out, code := command(f.t, f.socket, args...); code != 0 || !strings.Contains(out, words) {
			f.t.Errorf("%v: %d: %s", args, code, out)
		}
	}
}

// die sends the deadly request until divide is refused, one at a time, and returns how many
// workers it cost.
func (f *site) die() (deaths int) {
	f.t.Helper()
	for {
		f.intact()
		switch status, body := f.divided(0); status {
		case http.StatusServiceUnavailable:
			return deaths
		case 0:
			deaths++
		default:
			f.t.Fatalf("%d: %s", status, body)
		}
	}
}

// TestQuarantineEnds: with a release, after which as many deaths are needed as before, and
// with a model of other content; not with a reload of the same.
func TestQuarantineEnds(t *testing.T) {
	f := dividing(t)
	events := f.events()
	if out, code := command(t, f.socket, "models", "release", "divide"); code != 0 || !strings.Contains(out, "model divide is not quarantined") {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := command(t, f.socket, "models", "release", "dvide"); code != ipc.ExitUsage || !strings.Contains(out, `no model "dvide"`) ||
		!strings.Contains(out, "digits, divide, square") {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := command(t, f.socket, "models", "release"); code != ipc.ExitUsage {
		t.Errorf("%d: %s", code, out)
	}
	if n := f.die(); n != 3 {
		t.Errorf("quarantined after %d deaths", n)
	}
	f.reload().end(0)
	if status, body := f.divided(5); status != http.StatusServiceUnavailable {
		t.Errorf("after a reload of the same: %d: %s", status, body)
	}
	if m := f.model("divide"); m.State != admin.StateQuarantined || m.Deaths != 3 {
		t.Errorf("after a reload of the same: %+v", m)
	}

	if out, code := command(t, f.socket, "models", "release", "divide"); code != 0 || !strings.Contains(out, "model divide is served again") {
		t.Errorf("%d: %s", code, out)
	}
	if e := events.await("the release", func(e admin.Event) bool { return e.Kind == "release" }); e.Model != "divide" || e.Count != 3 || e.Request == "" {
		t.Errorf("%+v", e)
	}
	if status, body := f.divided(5); status != http.StatusOK || !strings.Contains(body, `"data":[20]`) {
		t.Errorf("after the release: %d: %s", status, body)
	}
	if n := f.die(); n != 3 {
		t.Errorf("quarantined again after %d deaths", n)
	}

	f.divide(mended())
	r := f.reload()
	r.end(0, "model divide: version 1 has other content")
	for n, want := range map[int]string{0: `"data":[100]`, 5: `"data":[20]`} {
		if status, body := f.divided(n); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("after a reload of another: %d: %s", status, body)
		}
	}
	if m := f.model("divide"); m.State != "serving" || m.Deaths != 0 || m.Reason != "" {
		t.Errorf("after a reload of another: %+v", m)
	}
	f.divide(deadly())
	f.reload().end(0)
	if m := f.model("divide"); m.State != "serving" || m.Deaths != 0 { // nobody remembers a model that was away
		t.Errorf("the first one once more: %+v", m)
	}
}

// TestKilledWorkersBlameNoModel kills workers in the middle of a model's requests.
func TestKilledWorkersBlameNoModel(t *testing.T) {
	f := begin(t, testkit.Options{}, "worker: {quarantine_after: 1}\ntimeouts: {request: 10m, drain: 10m}\n")
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGKILL} {
		f.whole()
		ended := make(chan error, 1)
		go func() {
			resp, err := fresh.Post(f.URL+"/v2/models/square/infer", "application/json", strings.NewReader(sized(5000)))
			if err == nil {
				resp.Body.Close()
			}
			ended <- err
		}()
		victim := 0
		if testkit.Await(func() bool {
			for _, s := range status1(t, f.socket).Pools[0].Slots {
				if s.InFlight > 0 {
					victim = s.PID
				}
			}
			return victim != 0
		}) != nil {
			t.Fatal("nobody is busy")
		}
		kill(t, victim, sig)
		if err := <-ended; err == nil {
			t.Error("the request was answered")
		}
		testkit.Gone(t, victim)
	}
	f.whole()
	if m := f.model("square"); m.Deaths != 0 || m.State != "serving" {
		t.Errorf("%+v", m)
	}
	if out, _ := command(t, f.socket, "events"); strings.Contains(out, "quarantine") {
		t.Error(out)
	}
}
