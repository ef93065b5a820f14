package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// site is a service whose configuration a test rewrites between reloads.
type site struct {
	*testkit.Service
	*toll
	t      *testing.T
	socket string
	models string
	last   uint64 // generation that was tried
}

// begin starts a service from configuration, whose text stays in force until configure;
// o says what else is not the default. It has a model that takes as long as it is asked to.
func begin(t *testing.T, o testkit.Options, configuration string) *site {
	t.Helper()
	f := lay(t)
	o.Set = append(o.Set, "worker.max_crashes=1000", "worker.max_backoff=1ms")
	f.start(o, configuration)
	return f
}

// lay writes the models of a service that start starts.
func lay(t *testing.T) *site {
	t.Helper()
	f := &site{t: t, last: 1, socket: filepath.Join(t.TempDir(), "admin.sock"), models: filepath.Join(t.TempDir(), "models")}
	digits := filepath.Join(f.models, "digits")
	if err := os.CopyFS(digits, os.DirFS(filepath.Join(testkit.Root(t), "models/digits"))); err != nil {
		t.Fatal(err)
	}
	f.square("1", product(), 1)
	return f
}

func (f *site) start(o testkit.Options, configuration string) {
	f.t.Helper()
	o.Admin, o.Models, o.Config = f.socket, f.models, configuration
	o.Set = append(o.Set, "http.worker_header=true", "predict.model=digits")
	f.Service = testkit.Start(f.t, o)
	f.toll = newToll(f.t, strings.TrimPrefix(f.URL, "http://"))
}

// square writes a version of the model called square and a warm-up that asks for n.
func (f *site) square(version string, model []byte, n int) {
	f.t.Helper()
	dir := filepath.Join(f.models, "square")
	if err := os.MkdirAll(filepath.Join(dir, version), 0o755); err != nil {
		f.t.Fatal(err)
	}
	write(f.t, filepath.Join(dir, version, "model.onnx"), string(model))
	write(f.t, filepath.Join(dir, "warmup.json"), fmt.Sprintf(`[{"request":%s}]`, sized(n)))
}

// sized is an inference request to square.
func sized(n int) string {
	return fmt.Sprintf(`{"inputs":[{"name":"n","shape":[2],"datatype":"INT64","data":[%d,%d]}]}`, n, n)
}

func (f *site) configure(text string) { write(f.t, f.Config, text) }

// worker returns the process id of a worker, as soon as it has one.
func (f *site) worker(generation uint64, slot int) (pid int) {
	f.t.Helper()
	if testkit.Await(func() bool {
		for _, s := range status1(f.t, f.socket).Pools[0].Slots {
			if s.Generation == generation && s.Index == slot {
				pid = s.PID
			}
		}
		return pid > 0
	}) != nil {
		f.t.Fatalf("generation %d has no worker %d", generation, slot)
	}
	return pid
}

// allReady tells whether every process of the main pool is ready and of the generation in charge.
func allReady(st admin.Status) bool {
	return !slices.ContainsFunc(st.Pools[0].Slots, func(s admin.Slot) bool { return s.State != "ready" || s.Generation != st.Generation })
}

// whole waits until every slot of the generation in charge has a ready worker. Who has just been killed is
// ready until the supervisor has noticed.
func (f *site) whole() {
	f.t.Helper()
	if testkit.Await(func() bool {
		st := status1(f.t, f.socket)
		return allReady(st) && !slices.ContainsFunc(st.Pools[0].Slots, func(s admin.Slot) bool { return !testkit.Alive(s.PID) })
	}) != nil {
		f.t.Fatal("not every worker came back")
	}
}

// generation returns the number of the one in charge.
func (f *site) generation() uint64 {
	f.t.Helper()
	return status1(f.t, f.socket).Generation
}

// everyFailure makes a report list them all: each is checked.
const everyFailure = 1 << 20

// load runs keep-alive clients, each of which has been answered when it returns.
func (f *site) load(o load.Options) (g *load.Generator, end func() *load.Report) {
	f.t.Helper()
	o.Keepalive, o.KeepFailures = true, everyFailure
	o.Timeout = testkit.Limit // how fast an answer is, is not what these tests are about
	g, end = storm(f.t, f.Service, o)
	answers(f.t, g, uint64(8*o.Conns))
	return g, end
}

// reloading is a reload command under way.
type reloading struct {
	t          *testing.T
	generation uint64 // the new one
	cmd        *exec.Cmd
	lines      *bufio.Scanner
	text       strings.Builder // all that it has printed
	out        strings.Builder
}

// reload starts one and does not wait.
func (f *site) reload() *reloading {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testkit.Limit)
	f.t.Cleanup(cancel)
	f.last++
	r := &reloading{t: f.t, generation: f.last, cmd: exec.CommandContext(ctx, filepath.Join(testkit.Programs(f.t), "preforkd"), "reload", "--admin", f.socket)}
	pipe, err := r.cmd.StderrPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	r.lines = bufio.NewScanner(pipe)
	r.cmd.Stdout = &r.out
	if err := r.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	return r
}

// await reads on until a line of progress begins with prefix.
func (r *reloading) await(prefix string) {
	r.t.Helper()
	for r.lines.Scan() {
		r.text.WriteString(r.lines.Text() + "\n")
		if strings.HasPrefix(r.lines.Text(), prefix) {
			return
		}
	}
	_ = r.cmd.Wait()
	r.t.Fatalf("the reload never came to %q:\n%s%s", prefix, r.text.String(), r.out.String())
}

// end waits for the end and demands status and words.
func (r *reloading) end(status int, words ...string) {
	r.t.Helper()
	for r.lines.Scan() {
		r.text.WriteString(r.lines.Text() + "\n")
	}
	_ = r.cmd.Wait()
	text := r.text.String() + r.out.String()
	if got := r.cmd.ProcessState.ExitCode(); got != status {
		r.t.Fatalf("the reload ended with status %d, want %d:\n%s", got, status, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

// happenings follows a service's events, from the first one on.
type happenings struct {
	t       *testing.T
	decoder *json.Decoder
}

func (f *site) events() *happenings {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testkit.Limit)
	cmd := exec.CommandContext(ctx, filepath.Join(testkit.Programs(f.t), "preforkd"), "events", "-f", "--json", "--admin", f.socket)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return &happenings{f.t, json.NewDecoder(pipe)}
}

// await reads on until cond holds of an event, which it returns.
func (h *happenings) await(what string, cond func(admin.Event) bool) admin.Event {
	h.t.Helper()
	for {
		var e admin.Event
		if err := h.decoder.Decode(&e); err != nil {
			h.t.Fatalf("%s: %v", what, err)
		}
		if cond(e) {
			return e
		}
	}
}

// successor waits until a worker of generation that is not in known becomes ready.
func (h *happenings) successor(generation uint64, known ...int) {
	h.t.Helper()
	h.await("a replacement of the same generation", func(e admin.Event) bool {
		return e.Kind == "ready" && e.Generation == generation && !slices.Contains(known, e.PID)
	})
}

// gate holds workers before they begin, as a slow start would.
type gate struct {
	t    *testing.T
	path string
	hold *os.File // a writer: readers wait until the last one has gone
}

func newGate(t *testing.T) *gate {
	t.Helper()
	return gateAt(t, filepath.Join(t.TempDir(), "gate"))
}

// gateAt makes path a gate, which was open until now.
func gateAt(t *testing.T, path string) *gate {
	t.Helper()
	g := &gate{t: t, path: path}
	if err := syscall.Mkfifo(g.path, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.hold, err = os.OpenFile(g.path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.hold.Close() })
	return g
}

// open lets those that wait go on, and all that come.
func (g *gate) open() {
	g.t.Helper()
	if err := os.Remove(g.path); err != nil {
		g.t.Fatal(err)
	}
	g.hold.Close()
}

// gated is a setting: workers whose slot is in held wait at g.
func gated(t *testing.T, g *gate, held string) string {
	t.Helper()
	return fmt.Sprintf("worker: {kind: preforkd, command: [%s, %s]}\n", program(t, `#!/bin/sh
case $PREFORKD_SLOT in
`+held+`) [ ! -p "$1" ] || read -r _ 2>/dev/null <"$1" ;;
esac
exec `+filepath.Join(testkit.Programs(t), "preforkd-worker")+"\n"), g.path)
}

// pidOf returns the process id in X-Preforkd-Worker; 0: none.
func pidOf(worker string) int {
	pid, _ := strconv.Atoi(worker[strings.LastIndex(worker, "/")+1:])
	return pid
}
