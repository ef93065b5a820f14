package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// boxes asks the model called stubborn for k.
func boxes(k int) string {
	const input = `{"name":%q,"shape":[3],"datatype":"INT64","data":[1,%d,%d]}`
	return `{"inputs":[` + fmt.Sprintf(input, "boxes", k, 4) + "," + fmt.Sprintf(input, "scores", 1, k) + `]}`
}

var (
	endless = load.Post("/v2/models/stubborn/infer", "application/json", []byte(boxes(200_000)))
	hours   = load.Post("/v2/models/rounds/infer", "application/json", []byte(sized(10_000_000_000)))
	brief   = load.Post("/v2/models/rounds/infer", "application/json", []byte(sized(3)))
)

// clocked starts a service with the models rounds and stubborn.
func clocked(t *testing.T, o testkit.Options, configuration string) *site {
	t.Helper()
	models := filepath.Join(t.TempDir(), "models")
	for name, content := range map[string]struct {
		model []byte
		small string
	}{"rounds": {rounds(), sized(3)}, "stubborn": {stubborn(), boxes(3)}} {
		if err := os.MkdirAll(filepath.Join(models, name, "1"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(models, name, "1/model.onnx"), string(content.model))
		write(t, filepath.Join(models, name, "warmup.json"), `[{"request":`+content.small+`}]`)
	}
	f := &site{t: t, last: 1, socket: filepath.Join(t.TempDir(), "admin.sock"), models: models}
	if err := os.CopyFS(filepath.Join(models, "digits"), os.DirFS(filepath.Join(testkit.Root(t), "models/digits"))); err != nil {
		t.Fatal(err)
	}
	o.Admin, o.Models, o.Config = f.socket, models, configuration
	o.Set = append(o.Set, "http.worker_header=true", "predict.model=digits")
	f.Service = testkit.Start(t, o)
	return f
}

// read returns the next answer's status and error; closed: the connection ended with it.
func (v *visitor) read504(t *testing.T) (text string, closed bool) {
	t.Helper()
	resp, err := http.ReadResponse(v.read, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 504 || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s, %v", resp.StatusCode, body, err)
	}
	var answer struct{ Error, Detail string } // of one protocol or the other
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	v.last = resp.Header.Get("X-Preforkd-Worker")
	return answer.Error + answer.Detail, resp.Close
}

func (v *visitor) send(t *testing.T, request []byte) {
	t.Helper()
	if _, err := v.conn.Write(request); err != nil {
		t.Fatal(err)
	}
}

// TestRequestClockStopsARun: a run of many operators ends when its time is over. Neither
// its connection nor its worker does.
func TestRequestClockStopsARun(t *testing.T) {
	f := clocked(t, testkit.Options{Workers: 1}, "timeouts: {request: 1600ms}\n")
	v := visit(t, 1, "tcp", strings.TrimPrefix(f.URL, "http://"))[0]
	worker := v.pid()
	for range 3 {
		v.send(t, hours)
		text, closed := v.read504(t)
		if text != `model "rounds" gave no answer within timeouts.request, which is 1.6s` || closed || v.pid() != worker {
			t.Errorf("%s, closed %v, by %d", text, closed, v.pid())
		}
		if err := v.ask(brief); err != nil || v.pid() != worker {
			t.Errorf("afterwards: %v, by %d", err, v.pid())
		}
	}
	if strings.Contains(f.LogText(), "timeouts.request") {
		t.Error("the log has a clock that did nothing unusual")
	}
}

// TestRequestClock has a worker run one operator that does not end. Its client gets its
// answer in time, and so do those who wait behind it; at twice the limit the worker is
// replaced, and every other connection moves to where it is answered.
func TestRequestClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := clocked(t, testkit.Options{Workers: 2, Listen: []string{"127.0.0.1:0", "unix:" + path}}, "timeouts: {request: 2s, heartbeat: 3s}\n")
	n := f.Reports()
	all := visit(t, 64, "tcp", strings.TrimPrefix(f.URL, "http://"))
	// One worker may have accepted all of them: the other will not do.
	of := map[int]*visitor{}
	for _, v := range all {
		of[v.pid()] = v
	}
	stuck := visit(t, 1, "unix", path)[0]
	for tries := 1; of[stuck.pid()] == nil; tries++ {
		if tries == 1000 {
			t.Fatalf("worker %d has none of %d connections, and nobody else answers", stuck.pid(), len(all))
		}
		stuck = visit(t, 1, "unix", path)[0]
	}
	worker := stuck.pid()
	behind := of[worker]
	stuck.send(t, endless)
	f.busy(worker)
	// Where another worker is free only what cannot travel waits behind it.
	pinned := inChunks("/predict", ones)
	behind.send(t, pinned)
	if text, closed := stuck.read504(t); text != `model "stubborn" gave no answer within timeouts.request, which is 2s` || !closed || stuck.pid() != worker {
		t.Errorf("%s, closed %v, by %d", text, closed, stuck.pid())
	}
	if rest, err := io.ReadAll(stuck.read); err != nil || len(rest) > 0 {
		t.Errorf("after the answer: %q, %v", rest, err)
	}
	if text, closed := behind.read504(t); text != "no inference could start within 2s (timeouts.request), all are busy" || closed || behind.pid() != worker {
		t.Errorf("behind it: %s, closed %v, by %d", text, closed, behind.pid())
	}
	for { // sooner or later it waits while its worker leaves
		err := behind.ask(pinned)
		if err != nil && strings.HasPrefix(err.Error(), "status 504, close false: ") {
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "status 503, close false: ") || behind.pid() != worker {
			t.Errorf("behind it, at last: %v, by %d", err, behind.pid())
		}
		break
	}
	n = f.AwaitAfter(n, "STATUS=1 of 2 workers ready")
	f.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	if failed := asked(t, all); failed > 0 {
		t.Errorf("%d other connections failed", failed)
	}
	moved(t, f, all)
	text := f.LogText()
	for _, want := range []string{"worker stuck in an engine call", "clock=timeouts.request", "cannot be stopped", "left in the middle of a run", `reason="request clock"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s: not in the log", want)
		}
	}
	for _, bad := range []string{"worker killed", "timeouts.heartbeat", "requests lost"} {
		if strings.Contains(text, bad) {
			t.Errorf("%s: in the log", bad)
		}
	}
}

// TestReloadWithAnEndlessRun does not wait for it: its client has been answered.
func TestReloadWithAnEndlessRun(t *testing.T) {
	f := clocked(t, testkit.Options{Workers: 1}, quick+"timeouts: {request: 1s, drain: 1m}\n")
	v := visit(t, 1, "tcp", strings.TrimPrefix(f.URL, "http://"))[0]
	old := v.pid()
	f.configure(quick + "timeouts: {request: 1h, drain: 1h}\n") // of the new one
	v.send(t, endless)
	if text, closed := v.read504(t); !closed {
		t.Errorf("the connection goes on: %s", text)
	}
	f.reload().end(0)
	if testkit.Await(func() bool { return syscall.Kill(old, 0) != nil }) != nil {
		t.Error("the old worker stays")
	}
	if text := f.LogText(); strings.Contains(text, "worker killed") {
		t.Error("it was killed")
	}
}

// TestHeartbeatClock stops a worker until its heartbeat is missed. It is sent ABRT first,
// so that when it goes on, its stacks land in the log; nobody has to kill it.
func TestHeartbeatClock(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Workers: 2, Set: []string{"timeouts.heartbeat=1s"}})
	n := s.Reports()
	worker := s.Workers()[0]
	kill(t, worker, syscall.SIGSTOP)
	if testkit.Await(func() bool { return strings.Contains(s.LogText(), "worker stopped its heartbeat") }) != nil {
		t.Fatal("nobody missed the heartbeat")
	}
	kill(t, worker, syscall.SIGCONT)
	n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
	s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	text := s.LogText()
	for _, want := range []string{"clock=timeouts.heartbeat", "limit=1s", "SIGABRT: abort", "goroutine ", `reason="heartbeat clock"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s: not in the log", want)
		}
	}
}
