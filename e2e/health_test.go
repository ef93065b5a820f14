package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/testkit"
)

// The columns of the table in docs/operations.md, section Health.
var healthColumns = []string{"`/livez`, shared", "`/readyz`, shared", "`/livez`, operations", "`/readyz`, operations", "`health --live`", "`health`"}

// What a cell may say beside a status.
const (
	waits   = "waits"   // the connection stands, and is answered as soon as somebody can
	refused = "refused" // nobody listens
)

// healthStates are the rows of that table: how the service gets into the state, and what
// each column says then. TestHealthTable drives it there and looks; TestHealthIsDocumented
// compares with the page.
var healthStates = []struct {
	name  string
	cells string // of healthColumns, in their order
	enter func(*testing.T) *probed
}{
	{"starting: no worker is ready yet", "waits waits 200 503 0 69", enterStarting},
	{"serving", "200 200 200 200 0 0", enterServing},
	{"some workers crashed, others are ready", "200 200 200 200 0 0", enterCrashed},
	{"reload under way", "200 200 200 200 0 0", enterReload},
	{"upgrade under way", "200 200 200 200 0 0", enterUpgrade},
	{"all workers busy, more requests wait", "200 200 200 200 0 0", enterBusy},
	{"no worker is ready any more", "waits waits 200 503 0 69", enterNone},
	{"supervisor hangs", "200 200 waits waits 69 69", func(t *testing.T) *probed { return enterWithout(t, syscall.SIGSTOP) }},
	{"supervisor died, the next one has yet to begin", "200 200 waits waits 69 69", func(t *testing.T) *probed { return enterWithout(t, syscall.SIGKILL) }},
	{"stopping, within `drain.delay`", "200 503 200 503 0 69", enterDelayed},
	{"draining after it", "refused refused 200 503 0 69", enterDraining},
}

// probed is a service in some state.
type probed struct {
	t           *testing.T
	socket      string
	shared, ops string
	leave       func()      // the state, so that what waits is answered; nil: nothing does
	after       string      // what is answered then
	closing     bool        // answers of the shared port close their connections
	waiting     []*question // that have yet to be answered
}

// question is a request that is not answered yet.
type question struct {
	column string
	answer chan string
}

// where finds out where a service listens, which need not be ready.
func where(t *testing.T, socket string) *probed {
	t.Helper()
	if testkit.Await(func() bool {
		_, err := os.Stat(socket)
		return err == nil
	}) != nil {
		t.Fatal("no admin socket")
	}
	st := status1(t, socket)
	return &probed{t: t, socket: socket, shared: "http://" + st.Listen[0], ops: "http://" + st.Operations}
}

// healthy starts a service with an operations listener.
func healthy(t *testing.T, configuration string) (*site, *probed) {
	t.Helper()
	f := begin(t, testkit.Options{Ops: "127.0.0.1:0"}, configuration)
	return f, where(t, f.socket)
}

// paths of each column that is a path; a worker has three names for both.
var healthPaths = map[string][]string{
	"`/livez`, shared":      {"/livez", "/healthz", "/v2/health/live"},
	"`/readyz`, shared":     {"/readyz", "/v2/health/ready"},
	"`/livez`, operations":  {"/livez", "/healthz"},
	"`/readyz`, operations": {"/readyz"},
}

// TestHealthTable drives a service into each state and asserts every cell.
func TestHealthTable(t *testing.T) {
	for _, st := range healthStates {
		t.Run(strings.ReplaceAll(st.name, ",", ""), func(t *testing.T) {
			p := st.enter(t)
			for i, want := range strings.Fields(st.cells) {
				p.check(healthColumns[i], want)
			}
			p.settle()
		})
	}
}

// check asserts one cell.
func (p *probed) check(column, want string) {
	p.t.Helper()
	paths, isPath := healthPaths[column]
	if !isPath {
		args := append(strings.Fields(strings.Trim(column, "`")), "--admin", p.socket)
		if want != "0" && p.after != "" { // of a supervisor that does not answer
			args = append(args, "--timeout", "300ms")
		}
		out, code := run(p.t, filepath.Join(testkit.Programs(p.t), "preforkd"), args...)
		if strconv.Itoa(code) != want || strings.Count(out, "\n") != 1 {
			p.t.Errorf("%s: status %d, want %s: %s", column, code, want, out)
		}
		return
	}
	base := p.ops
	if strings.HasSuffix(column, "shared") {
		base = p.shared
	}
	for _, path := range paths {
		q := p.ask(column+": "+path, base+path)
		if want == waits {
			p.waiting = append(p.waiting, q)
			continue
		}
		expected := want
		if p.closing && base == p.shared {
			expected += " close"
		}
		if got := <-q.answer; got != expected {
			p.t.Errorf("%s: %s, want %s", q.column, got, expected)
		}
	}
}

// ask sends a request on a connection of its own.
func (p *probed) ask(column, url string) *question {
	q := &question{column, make(chan string, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Limit)
	p.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { // ends with the answer, or the limit
		// A transport of its own that keeps connections alive, so that closing one is the
		// server's word.
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(req)
		switch {
		case err != nil && strings.Contains(err.Error(), "connection refused"):
			q.answer <- refused
		case err != nil:
			q.answer <- err.Error()
		default:
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			text := strconv.Itoa(resp.StatusCode)
			if resp.Close {
				text += " close"
			}
			q.answer <- text
		}
	}()
	return q
}

// settle demands that what waits has not been answered yet, and is, once the state is over.
func (p *probed) settle() {
	p.t.Helper()
	for _, q := range p.waiting {
		select {
		case got := <-q.answer:
			p.t.Errorf("%s: %s, want no answer yet", q.column, got)
			q.answer <- got
		default:
		}
	}
	if p.leave == nil {
		return
	}
	p.leave()
	for _, q := range p.waiting {
		if got := <-q.answer; got != p.after {
			p.t.Errorf("%s: %s at last, want %s", q.column, got, p.after)
		}
	}
}

func enterStarting(t *testing.T) *probed {
	f, g := lay(t), newGate(t)
	o := testkit.Options{Admin: f.socket, Models: f.models, Config: gated(t, g, "*"), Ops: "127.0.0.1:0"}
	testkit.Launch(t, o)
	p := where(t, f.socket)
	p.leave, p.after = g.open, "200"
	return p
}

func enterServing(t *testing.T) *probed {
	_, p := healthy(t, quick)
	return p
}

// enterCrashed kills one worker; its successor does not come up.
func enterCrashed(t *testing.T) *probed {
	p, g := gone(t, "1", func(f *site) []int { return []int{f.worker(1, 1)} })
	t.Cleanup(g.open)
	return p
}

func enterNone(t *testing.T) *probed {
	p, g := gone(t, "*", func(f *site) []int { return []int{f.worker(1, 0), f.worker(1, 1)} })
	p.leave, p.after = g.open, "200"
	return p
}

// gone kills workers whose successors wait at a gate, and returns when these have begun.
func gone(t *testing.T, held string, victims func(*site) []int) (*probed, *gate) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gate")
	f, p := healthy(t, gated(t, &gate{path: path}, held))
	pids := victims(f)
	g := gateAt(t, path)
	for _, pid := range pids {
		kill(t, pid, syscall.SIGKILL)
	}
	if testkit.Await(func() bool {
		started := 0
		for _, sl := range status1(t, f.socket).Pools[0].Slots {
			if sl.Restarts > 0 && sl.State != "ready" && sl.PID > 0 {
				started++
			}
		}
		return started == len(pids)
	}) != nil {
		t.Fatal("no successors")
	}
	return p, g
}

// enterReload begins a reload whose canary waits.
func enterReload(t *testing.T) *probed {
	f, p := healthy(t, quick)
	g := newGate(t)
	f.configure(quick + gated(t, g, "*"))
	r := f.reload()
	r.await("canary: 0 of 2 new workers ready")
	p.leave = func() {
		g.open()
		r.end(0)
	}
	return p
}

// enterUpgrade begins an upgrade whose canary waits.
func enterUpgrade(t *testing.T) *probed {
	f, p := healthy(t, quick)
	g := newGate(t)
	f.configure(quick + gated(t, g, "*"))
	end := background(t, f.socket, "upgrade")
	if testkit.Await(func() bool { return strings.Contains(f.LogText(), "phase=canary") }) != nil {
		t.Fatal("no canary")
	}
	p.leave = func() {
		g.open()
		if out, code := end(); code != 0 {
			t.Errorf("%d: %s", code, out)
		}
	}
	return p
}

// enterBusy gives every worker a run that lasts, and more that wait for their turn.
func enterBusy(t *testing.T) *probed {
	f := clocked(t, testkit.Options{Ops: "127.0.0.1:0"}, "timeouts: {request: 1h, drain: 1ms}\n")
	occupy(t, f)
	return where(t, f.socket)
}

// occupy sends runs that last until every worker is in the middle of one and as many wait.
func occupy(t *testing.T, f *site) {
	t.Helper()
	address := strings.TrimPrefix(f.URL, "http://")
	busy := func() (n, waiting int) {
		pool := status1(t, f.socket).Pools[0]
		for _, sl := range pool.Slots {
			n += min(sl.InFlight, 1)
		}
		return n, pool.Waiting
	}
	for sent := 1; ; sent++ {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write(hours); err != nil {
			t.Fatal(err)
		}
		if testkit.Await(func() bool { n, more := busy(); return n+more == sent }) != nil {
			t.Fatal("a request does not arrive")
		}
		if n, more := busy(); n == 2 && more >= 2 {
			return
		}
	}
}

// enterWithout stops the supervisor's work by a signal. The main process is stopped as well:
// it would start another.
func enterWithout(t *testing.T, sig syscall.Signal) *probed {
	f, p := healthy(t, quick)
	supervisor := f.Supervisor()
	f.Workers() // are to be gone in the end
	kill(t, f.Main, syscall.SIGSTOP)
	kill(t, supervisor, sig)
	p.leave = func() { kill(t, f.Main, syscall.SIGCONT) }
	p.after = "200"
	t.Cleanup(func() { _ = syscall.Kill(f.Main, syscall.SIGCONT) })
	return p
}

func enterDelayed(t *testing.T) *probed {
	f, p := healthy(t, quick+"drain: {delay: 1h}\n")
	n := f.Reports()
	f.Signal(syscall.SIGTERM)
	f.AwaitAfter(n, "STOPPING=1")
	p.closing = true
	p.leave = func() { f.Signal(syscall.SIGINT) }
	return p
}

// enterDraining lets a request last beyond the delay.
func enterDraining(t *testing.T) *probed {
	f := clocked(t, testkit.Options{Ops: "127.0.0.1:0"}, "timeouts: {request: 1h, drain: 1h}\ndrain: {delay: 10ms}\n")
	p := where(t, f.socket)
	occupy(t, f)
	events := f.events()
	f.Signal(syscall.SIGTERM)
	events.await("the drain", drains)
	if testkit.Await(func() bool { return <-p.ask("", p.shared).answer == refused }) != nil { // each worker closes its own
		t.Fatal("somebody listens")
	}
	p.leave = func() { f.Signal(syscall.SIGINT) }
	return p
}

// TestHealthIsDocumented: the table of docs/operations.md is that of the tests.
func TestHealthIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## Health\n")
	if !ok {
		t.Fatal("docs/operations.md has no section Health")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []string
	for line := range strings.Lines(section) {
		if line[0] == '|' {
			rows = append(rows, strings.TrimSpace(line))
		} else if len(rows) > 0 {
			break
		}
	}
	want := []string{"| state | " + strings.Join(healthColumns, " | ") + " |", "|" + strings.Repeat("---|", len(healthColumns)+1)}
	for _, st := range healthStates {
		want = append(want, "| "+st.name+" | "+strings.Join(strings.Fields(st.cells), " | ")+" |")
	}
	if got := strings.Join(rows, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("docs/operations.md has\n%s\nthe tests have\n%s", got, strings.Join(want, "\n"))
	}
}

// TestHealthCommand: what it says, and whom it asks.
func TestHealthCommand(t *testing.T) {
	f := begin(t, testkit.Options{Ops: "127.0.0.1:0"}, quick)
	if out, code := command(t, f.socket, "health"); code != 0 || out != "ready: 2 of 2 workers ready\n" {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := command(t, f.socket, "health", "--json"); code != 0 || out != `{"live":true,"ready":true,"reason":"2 of 2 workers ready"}`+"\n" {
		t.Errorf("%d: %s", code, out)
	}
	preforkd := filepath.Join(testkit.Programs(t), "preforkd")
	off := filepath.Join(t.TempDir(), "off.yaml") // of a service that has no admin socket
	write(t, off, fmt.Sprintf("admin: off\nops: {listen: %q}\n", strings.TrimPrefix(operations(t, f.socket), "http://")))
	for _, args := range [][]string{{"health", "-c", off}, {"health", "--live", "-c", off}} {
		if out, code := run(t, preforkd, args...); code != 0 || out != "ready: 2 of 2 workers ready\n" {
			t.Errorf("%v: %d: %s", args, code, out)
		}
	}
	f.Signal(syscall.SIGTERM)
	f.Wait()
	for _, args := range [][]string{{"health", "-c", off}, {"health", "--admin", f.socket}, {"health", "--live", "--admin", f.socket}} {
		if out, code := run(t, preforkd, args...); code != 69 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "is preforkd running?") {
			t.Errorf("%v: %d: %s", args, code, out)
		}
	}
	write(t, off, "admin: off\nops: {listen: off}\n")
	if out, code := run(t, preforkd, "health", "-c", off); code != 64 || !strings.Contains(out, "admin and ops.listen are off") {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := run(t, preforkd, "health", "--timeout", "0s"); code != 64 || !strings.Contains(out, "leaves no time") {
		t.Errorf("%d: %s", code, out)
	}
}

// TestHealthOfPools: a pool to which clients connect and which has no worker makes the service
// not ready.
func TestHealthOfPools(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.sock")
	path := filepath.Join(t.TempDir(), "gate")
	hold := program(t, "#!/bin/sh\n[ ! -p "+path+" ] || read -r _ <"+path+"\nexec "+python+" "+pythonServer(t)+" fine \"$@\"\n")
	_, socket := reloadable(t, testkit.Options{Ops: "127.0.0.1:0", Config: fmt.Sprintf(
		"pools:\n  web: {listen: [\"unix:%s\"], worker: {command: [%s, \"{fd}\", \"{probe}\"]}}\n", web, hold)})
	url := operations(t, socket)
	if code, text := get(t, url+"/readyz"); code != 200 || text != "3 of 3 workers ready\n" {
		t.Errorf("%d: %s", code, text)
	}
	g := gateAt(t, path)
	kill(t, status1(t, socket).Pools[1].Slots[0].PID, syscall.SIGKILL)
	if testkit.Await(func() bool { code, _ := get(t, url+"/readyz"); return code == 503 }) != nil {
		t.Error("ready without a worker of pool web")
	}
	if out, code := command(t, socket, "health"); code != 69 || out != "preforkd: not ready: pool web: 0 of 1 worker ready\n" {
		t.Errorf("%d: %s", code, out)
	}
	g.open()
	if testkit.Await(func() bool { code, _ := get(t, url+"/readyz"); return code == 200 }) != nil {
		t.Error("not ready again")
	}
}

// TestOperationsOnEveryInterface: [::] takes IPv4 as well.
func TestOperationsOnEveryInterface(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		t.Skip("skipped: this machine has no IPv6")
	}
	testkit.Start(t, testkit.Options{Admin: socket, Ops: "[::]:0"})
	address := status1(t, socket).Operations
	port := address[strings.LastIndex(address, ":")+1:]
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + host + ":" + port + "/readyz")
		if err != nil {
			t.Error(err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", host, resp.Status)
		}
	}
}
