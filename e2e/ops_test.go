package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// operations returns the base URL of a service's operations listener.
func operations(t *testing.T, socket string) string {
	t.Helper()
	address := status1(t, socket).Operations
	if address == "" {
		t.Fatal("the service has no operations listener")
	}
	return "http://" + address
}

// numbers scrapes url and returns every sample by its name and labels.
func numbers(t *testing.T, url string) map[string]float64 {
	t.Helper()
	status, text := get(t, url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, text)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			samples[line[:i]] = v
		}
	}
	return samples
}

// TestMetricsOutliveWorkersAndReloads counts requests on both sides, through a crash and
// reloads, good and bad.
func TestMetricsOutliveWorkersAndReloads(t *testing.T) {
	f := begin(t, testkit.Options{Ops: "127.0.0.1:0", Set: quickReload}, "log: {level: info}\n")
	url := operations(t, f.socket)
	_, end := f.load(load.Options{Conns: 4})
	before := numbers(t, url)
	if before["preforkd_last_reload_success"] != 1 || before["preforkd_last_reload_timestamp_seconds"] < 1e9 || before["preforkd_generation"] != 1 {
		t.Errorf("%v", before)
	}
	if out, code := command(t, f.socket, "reload"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	report := end()
	now := numbers(t, url)
	if got, want := now[`preforkd_http_requests_total{code="2xx"}`], float64(report.Answers+report.Warmup.Answers); got != want {
		t.Errorf("%v answers counted, clients had %v", got, want)
	}
	if a, b := now["preforkd_http_request_duration_seconds_count"], now[`preforkd_http_requests_total{code="2xx"}`]; a != b {
		t.Errorf("%v durations of %v answers", a, b)
	}
	if testkit.Await(func() bool { // workers bring these up to date once a second; who waited may have moved with the request
		now = numbers(t, url)
		return now["preforkd_connections_adopted_total"]+now["preforkd_requests_queued_total"] >= 4 && now["preforkd_connections_handed_over_total"] == now["preforkd_connections_adopted_total"]
	}) != nil {
		t.Errorf("%v connections given, %v taken", now["preforkd_connections_handed_over_total"], now["preforkd_connections_adopted_total"])
	}
	if now["preforkd_generation"] != 2 || now["preforkd_worker_exits_total"] != 2 || now[`preforkd_worker_restarts_total{cause="crash"}`] != 0 {
		t.Errorf("%v", now)
	}

	kill(t, f.worker(2, 0), syscall.SIGKILL)
	if testkit.Await(func() bool { return numbers(t, url)[`preforkd_worker_restarts_total{cause="crash"}`] == 1 }) != nil {
		t.Errorf("the restart is not counted: %v", numbers(t, url))
	}
	f.whole()
	f.configure("wrokers: 2\n")
	n := f.Reports()
	f.Signal(syscall.SIGHUP)
	f.AwaitAfter(n, "STATUS=2 of 2 workers ready; the last reload failed: "+f.Config+`:1:1: wrokers: unknown key; did you mean workers?`)
	bad := numbers(t, url)
	if bad["preforkd_last_reload_success"] != 0 || bad["preforkd_last_reload_timestamp_seconds"] <= now["preforkd_last_reload_timestamp_seconds"] {
		t.Errorf("after a failed reload: %v", bad)
	}
	if bad[`preforkd_http_requests_total{code="2xx"}`] < now[`preforkd_http_requests_total{code="2xx"}`] {
		t.Error("a counter fell")
	}
	f.configure("log: {level: info}\n")
	if out, code := command(t, f.socket, "reload", "--dry-run"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	if got := numbers(t, url)["preforkd_last_reload_success"]; got != 0 {
		t.Error("a rehearsal counts as a reload")
	}
	n = f.Reports()
	f.Signal(syscall.SIGHUP)
	f.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	if got := numbers(t, url)["preforkd_last_reload_success"]; got != 1 {
		t.Errorf("after a good reload: %v", got)
	}
}

// TestOperationsAnswerWithoutWorkers stops every worker: the listener answers, and says
// what is true.
func TestOperationsAnswerWithoutWorkers(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := testkit.Start(t, testkit.Options{Admin: socket, Ops: "127.0.0.1:0", Set: []string{"timeouts.heartbeat=500ms"}})
	url := operations(t, socket)
	if status, text := get(t, url+"/readyz"); status != 200 || text != "2 of 2 workers ready\n" {
		t.Errorf("%d: %s", status, text)
	}
	for _, pid := range s.Workers() {
		kill(t, pid, syscall.SIGSTOP)
	}
	if got := numbers(t, url); len(got) < 20 {
		t.Errorf("%v", got)
	}
	if testkit.Await(func() bool { status, _ := get(t, url+"/readyz"); return status == http.StatusServiceUnavailable }) != nil {
		t.Error("ready without a worker")
	}
	if testkit.Await(func() bool { status, _ := get(t, url+"/readyz"); return status == http.StatusOK }) != nil {
		t.Error("not ready again")
	}
	if testkit.Await(func() bool { return numbers(t, url)[`preforkd_worker_restarts_total{cause="hung"}`] == 2 }) != nil {
		t.Errorf("%v", numbers(t, url))
	}
	if status, text := get(t, url+"/livez"); status != 200 {
		t.Errorf("%d: %s", status, text)
	}
}

// TestOperationsAddressInUse: the default gives way, an address that was asked for does not.
func TestOperationsAddressInUse(t *testing.T) {
	if ln, err := net.Listen("tcp", "127.0.0.1:8002"); err == nil { // else another program is there already
		defer ln.Close()
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := testkit.Start(t, testkit.Options{Admin: socket, Set: []string{"ops.listen="}})
	if st := status1(t, socket); st.Operations != "" {
		t.Errorf("it listens on %s", st.Operations)
	}
	if text := s.LogText(); !strings.Contains(text, "no metrics") || !strings.Contains(text, "127.0.0.1:8002") {
		t.Errorf("%s", text)
	}
	refuses(t, testkit.Options{Ops: "127.0.0.1:8002"}, ipc.ExitUnavailable, "ops.listen: listen on 127.0.0.1:8002: address already in use", "try: set ops.listen")
}

// TestStrangersAreIgnored: whoever finds the workers' notify socket can say nothing in their
// name.
func TestStrangersAreIgnored(t *testing.T) {
	f := begin(t, testkit.Options{Ops: "127.0.0.1:0"}, "log: {level: info}\n")
	url := operations(t, f.socket)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", f.Workers()[0]))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(environ), "\x00NOTIFY_SOCKET=")
	name, _, _ := strings.Cut(rest, "\x00")
	stranger, err := notify.Dial(name)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	before := fmt.Sprint(status1(t, f.socket).Pools, f.Workers())
	for _, text := range []string{"READY=1", "STOPPING=1", "ERRNO=2", "\x00\xff=nonsense", strings.Repeat("x", 60000)} {
		if err := stranger.SendWait(text); err != nil {
			t.Fatal(err)
		}
	}
	if testkit.Await(func() bool { return numbers(t, url)["preforkd_notify_dropped_total"] == 5 }) != nil {
		t.Errorf("%v", numbers(t, url)["preforkd_notify_dropped_total"])
	}
	for _, sl := range status1(t, f.socket).Pools[0].Slots {
		if sl.State != "ready" {
			t.Errorf("%+v; before %s", sl, before)
		}
	}
}
