package e2e

import (
	"bytes"
	"fmt"
	pic "image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// pythonHelpers is the directory of the helper library and its example.
func pythonHelpers(t testing.TB) string { return filepath.Join(testkit.Root(t), "helpers", "python") }

// actor is a helper that appends who it is to the text that it gets, after what that asks for.
const actor = `
import os, sys, time
sys.path.insert(0, %q)
import preforkd_helper as helper

me = os.environ["PREFORKD_POOL"] + os.environ["PREFORKD_GENERATION"]
kept = []

@helper.model(os.environ["PREFORKD_POOL"], inputs=[("text", "BYTES", [1])], outputs=[("%s", "BYTES", [1])])
def act(request):
    (text,) = request["text"]
    for word in text.split():
        if word == b"die-in-" + os.environ["PREFORKD_POOL"].encode():
            os.kill(os.getpid(), 9)
        while word.startswith(b"hold=") and not os.path.exists(word[5:]):
            time.sleep(0.01)
        if word == b"leak":
            kept.append(bytearray(b"x" * (4 << 20)))
    return {"%s": helper.Value([text + b" " + me.encode()], content_type="text/plain")}

helper.serve()
`

// actors writes that helper, with its output called so, and returns its path.
func actors(t testing.TB, output string) string {
	path := filepath.Join(t.TempDir(), "actor.py")
	if err := os.WriteFile(path, fmt.Appendf(nil, actor, pythonHelpers(t), output, output), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// acting is a configuration with a route through the pools a and b of such helpers, and one through
// b alone; more is of pool a.
func acting(path, more string) string {
	return fmt.Sprintf(`
routes:
  /ab: {steps: [helper:a, helper:b]}
  /b: {steps: [helper:b]}
pools:
  a: {workers: 2, worker: {kind: helper, command: [%[1]s, %[2]s]}, helper: {max_wait: 20s}, timeouts: {boot: 20s}%[3]s}
  b: {workers: 2, worker: {kind: helper, command: [%[1]s, %[2]s]}, helper: {max_wait: 20s}}
`, python, path, more)
}

// picture is a held-out digit as the bytes of a picture, 8 times as large.
func picture(t testing.TB, pixels []string, encode func(*bytes.Buffer, pic.Image) error) []byte {
	t.Helper()
	im := pic.NewGray(pic.Rect(0, 0, 64, 64))
	for y := range 64 {
		for x := range 64 {
			v, err := strconv.Atoi(pixels[y/8*8+x/8])
			if err != nil {
				t.Fatal(err)
			}
			im.SetGray(x, y, color.Gray{Y: uint8(v * 255 / 16)})
		}
	}
	var b bytes.Buffer
	if err := encode(&b, im); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestClassifyImage: the example turns pictures of digits into the digits that the model sees, and
// refuses what is no picture. Helpers that are killed under load take their own requests with
// them, and no others.
func TestClassifyImage(t *testing.T) {
	needs(t, "python3-pil", python, "-c", "import PIL")
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), "configs", "digit-images.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(string(text), "helpers/python", pythonHelpers(t))
	s, socket := reloadable(t, testkit.Options{Config: config, Ops: "127.0.0.1:0"})
	dir := filepath.Join(testkit.Root(t), "testdata", "digits")
	samples, answers := lines(t, filepath.Join(dir, "samples.csv")), lines(t, filepath.Join(dir, "digits-cnn.csv"))
	var first []byte
	for i := range 12 {
		want := strings.Split(answers[i], ",")[0]
		for kind, encode := range map[string]func(*bytes.Buffer, pic.Image) error{
			"image/png":  func(b *bytes.Buffer, im pic.Image) error { return png.Encode(b, im) },
			"image/jpeg": func(b *bytes.Buffer, im pic.Image) error { return jpeg.Encode(b, im, &jpeg.Options{Quality: 95}) },
		} {
			body := picture(t, strings.Split(samples[i], ","), encode)
			if first == nil && kind == "image/png" {
				first = body
			}
			resp, err := fresh.Post(s.URL+"/classify-image", kind, bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			status, got := answered(t, resp)
			if status != 200 || !strings.HasPrefix(got, `{"digit": `+want+`, "confidence": 0.`) || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s of sample %d: %d %s, want %s", kind, i, status, got, want)
			}
		}
	}
	if status, got := post(t, s.URL+"/classify-image", "hello"); status != http.StatusUnsupportedMediaType || !strings.Contains(got, "helper decode (slot ") || !strings.Contains(got, "no PNG or JPEG") {
		t.Errorf("%d %s", status, got)
	}

	const conns, kills = 8, 4
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true, Timeout: testkit.Limit, Request: load.Post("/classify-image", "image/png", first)})
	for i := range kills {
		load50(t, g)
		kill(t, poolPID(t, socket, "decode", i%2), syscall.SIGKILL)
		if err := testkit.Await(func() bool { return everyReady(status1(t, socket)) }); err != nil {
			t.Fatal(err)
		}
	}
	load50(t, g)
	r := end()
	// Each of two workers has four requests at a helper (helper.connections).
	if n := r.Failures.Total(); n > 2*4*kills || r.Statuses[http.StatusBadGateway] != n || r.Dials != conns {
		t.Errorf("%d requests failed, %d with 502, by %d helpers that were killed; %d dials", n, r.Statuses[http.StatusBadGateway], kills, r.Dials)
	}
	n := numbers(t, operations(t, socket))
	if n[`preforkd_helper_requests_total{outcome="ok",pool="decode"}`] < float64(r.Answers) || n[`preforkd_helper_seconds_total{pool="format"}`] <= 0 || n[`preforkd_layer_requests{layer="sync",state="running"}`] != 0 {
		t.Errorf("metrics: %v", n)
	}
}

func load50(t *testing.T, g *load.Generator) {
	t.Helper()
	answers(t, g, 50)
}

func lines(t testing.TB, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

// everyReady tells whether each slot of every pool has a worker that is ready.
func everyReady(st admin.Status) bool {
	for _, p := range st.Pools {
		for _, sl := range p.Slots {
			if sl.State != "ready" || sl.Generation != st.Generation {
				return false
			}
		}
	}
	return true
}

// poolPID is the process in a slot of a pool.
func poolPID(t *testing.T, socket, pool string, slot int) int {
	t.Helper()
	for _, p := range status1(t, socket).Pools {
		for _, sl := range p.Slots {
			if p.Name == pool && sl.Index == slot && sl.PID > 0 {
				return sl.PID
			}
		}
	}
	t.Fatalf("pool %s has no process in slot %d", pool, slot)
	return 0
}

// TestReloadOfHelpers: under busy clients a reload replaces helpers and workers at once: no request
// fails, and none meets helpers of two generations. One to helpers that do not start, or that do
// not fit together any more, is taken back with the reason; so are a rollback's and the stop's
// requests answered.
func TestReloadOfHelpers(t *testing.T) {
	path := actors(t, "text")
	s, socket := reloadable(t, testkit.Options{Config: acting(path, "")})
	mixed := make(chan string, 1)
	const conns = 8
	g, end := storm(t, s, load.Options{
		Conns: conns, Keepalive: true, Timeout: testkit.Limit, Request: load.Post("/ab", "text/plain", []byte("x")),
		Check: func(_ int, body []byte) error {
			var a, b int
			if n, err := fmt.Sscanf(string(body), "x a%d b%d", &a, &b); n != 2 || err != nil || a != b {
				select {
				case mixed <- string(body):
				default:
				}
				return fmt.Errorf("%q", body)
			}
			return nil
		},
	})
	answers(t, g, 100)
	must(t, socket, []string{"reload"}, "generation 2 serves")
	answers(t, g, 100)
	if _, got := post(t, s.URL+"/ab", "now"); got != "now a2 b2" {
		t.Errorf("%q", got)
	}
	for _, p := range status1(t, socket).Pools {
		for _, sl := range p.Slots {
			if sl.Generation != 2 || sl.State != "ready" {
				t.Errorf("pool %s: %+v", p.Name, sl)
			}
		}
	}
	write(t, s.Config, strings.Replace(acting(path, ""), path, "/no/such.py", 1))
	ends(t, socket, []string{"reload"}, ipc.ExitRolledBack, "pool a: the canary did not become ready", "/no/such.py")
	other := actors(t, "other")
	write(t, s.Config, strings.Replace(acting(path, ""), path, other, 1)+"routes_are: above\n")
	ends(t, socket, []string{"reload"}, ipc.ExitConfig, "routes_are: unknown key")
	misfit := strings.Replace(acting(path, ""), "[helper:a, helper:b]", "[helper:a, model:digits]", 1)
	write(t, s.Config, misfit)
	ends(t, socket, []string{"reload"}, ipc.ExitRolledBack, "pool main: the canary did not become ready",
		s.Config+`:3:27: routes./ab.steps[1]: model:digits does not fit behind helper:a: it takes "pixels" FP32 [-1 64], and gets "text" BYTES [1]`)
	answers(t, g, 100)
	if _, got := post(t, s.URL+"/ab", "still"); got != "still a2 b2" {
		t.Errorf("%q", got)
	}
	write(t, s.Config, acting(path, ""))
	must(t, socket, []string{"rollback", "1"}, "serves")
	answers(t, g, 100)
	r := end()
	if r.Failures.Total() > 0 || r.Dials != conns {
		t.Errorf("%v, %d dials; mixed: %v", r.Failures, r.Dials, len(mixed))
	}
	refuses(t, testkit.Options{Config: misfit}, ipc.ExitConfig, ":3:27: routes./ab.steps[1]: model:digits does not fit behind helper:a", "try: correct the steps")
	refuses(t, testkit.Options{Config: strings.Replace(misfit, "digits", "digit", 1)}, ipc.ExitConfig, ":3:27: routes./ab.steps[1]: model:digit is not in ", "digits-cnn/1")

	// What is in flight at TERM goes through all of its steps.
	answer, goOn := make(chan string, 1), filepath.Join(t.TempDir(), "go-on")
	go func() {
		resp, err := fresh.Post(s.URL+"/ab", "text/plain", strings.NewReader("hold="+goOn))
		if err != nil {
			answer <- err.Error()
			return
		}
		_, body := answered(t, resp)
		answer <- body
	}()
	if err := testkit.Await(func() bool { return syncRunning(t, socket) == 1 }); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGTERM)
	if err := testkit.Await(func() bool { return strings.Contains(s.LogText(), "msg=stopping") }); err != nil {
		t.Fatal(err)
	}
	write(t, goOn, "")
	if got := <-answer; !strings.HasPrefix(got, "hold="+goOn+" a") || !strings.Contains(got, " b") {
		t.Errorf("%q", got)
	}
	if code := s.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// syncRunning is how many requests are on the layer sync, those at helpers included.
func syncRunning(t *testing.T, socket string) int64 {
	t.Helper()
	for _, l := range status1(t, socket).Layers {
		if l.Name == "sync" {
			return l.Running
		}
	}
	return -1
}

// TestPythonHelperLibrary runs the tests of the library itself.
func TestPythonHelperLibrary(t *testing.T) {
	needs(t, "python3", python, "--version")
	if out, code := run(t, "env", "-C", pythonHelpers(t), "PYTHONDONTWRITEBYTECODE=1", python, "-W", "error", "-m", "unittest", "test_preforkd_helper"); code != 0 {
		t.Errorf("%s", out)
	}
}
