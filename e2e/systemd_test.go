package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
	"preforkd/internal/testkit/box"
)

// unit is the service of the package, in a box with a systemd of its own and the network of
// this machine.
type unit struct {
	*box.Machine
	t       *testing.T
	address string // where it listens
	share   string // a directory that the box has as /srv
	table   *rows
}

// unitSettings are the unit's configuration but for listen.
const unitSettings = `workers: 2
models: /var/lib/preforkd/models
ops: {listen: off}
reload: {bake: 100ms, trial: 100ms}
http: {worker_header: true, max_body: 1GiB}
worker: {max_backoff: 10ms, max_crashes: 1000}
`

// install boots a box and installs there what `make install` does, with the models of the
// repository. Nothing is started.
func installUnit(t *testing.T, o box.Options) *unit {
	t.Helper()
	share := t.TempDir()
	if o.Share == nil {
		o.Share = map[string]string{}
	}
	o.Share["/srv"], o.Network = share, true
	o.Bind = map[string]string{"/opt/stage": stage(t), "/opt/models": filepath.Join(testkit.Root(t), "models")}
	u := &unit{Machine: box.Boot(t, o), t: t, share: share, address: freeAddress(t), table: tableOf(t)}
	u.Must(`cp -a /opt/stage/. / && mkdir -p /var/lib/preforkd && cp -r /opt/models /var/lib/preforkd/models
		mkdir -p /etc/systemd/system/preforkd.service.d && systemctl daemon-reload`)
	u.configure("listen: [\"" + u.address + "\"]\n" + unitSettings)
	return u
}

// freeAddress is one of this machine at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func (u *unit) configure(text string) {
	u.t.Helper()
	u.write("etc", text, "/etc/preforkd/preforkd.yaml")
}

// write puts text into a file of the box, by rename.
func (u *unit) write(name, text, path string) {
	u.t.Helper()
	if err := os.WriteFile(filepath.Join(u.share, name), []byte(text), 0o644); err != nil {
		u.t.Fatal(err)
	}
	u.Must(fmt.Sprintf("cp /srv/%s %s.new && mv %s.new %s", name, path, path, path))
}

// property is one of the unit's, as systemctl-show(1) has it.
func (u *unit) property(name string) string {
	u.t.Helper()
	return strings.TrimSpace(u.Must("systemctl show --value --property=" + name + " preforkd"))
}

// status is what preforkd status says.
func (u *unit) status() admin.Status {
	u.t.Helper()
	return u.statusOf("/run/preforkd/admin.sock")
}

// statusOf is that of the service with that admin socket.
func (u *unit) statusOf(socket string) (st admin.Status) {
	u.t.Helper()
	out := u.Must("preforkd status --json --admin " + socket)
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		u.t.Fatalf("%v: %s", err, out)
	}
	return st
}

// whole waits until all workers of generation serve.
func (u *unit) whole(generation uint64) {
	u.t.Helper()
	var st admin.Status
	if testkit.Await(func() bool {
		st = u.status()
		return st.Generation >= generation && allReady(st) && len(st.Pools[0].Slots) == st.Pools[0].Size
	}) != nil {
		u.t.Errorf("not whole: %+v", st.Pools)
	}
}

// log is the journal of the unit.
func (u *unit) log() string { return u.Run("journalctl -u preforkd --no-pager -o cat").Out }

// under does something while clients are busy, and returns what they saw.
func (u *unit) under(what string, do func(g *load.Generator)) (kept, fresh *load.Report) {
	u.t.Helper()
	o := load.Options{Conns: unitConns, Keepalive: true, Think: 5 * time.Millisecond, Timeout: testkit.Limit, KeepFailures: everyFailure}
	g, end := stormAt(u.t, u.address, o)
	o.Conns, o.Keepalive, o.Think = 4, false, 10*time.Millisecond
	_, endFresh := stormAt(u.t, u.address, o)
	answers(u.t, g, 200)
	do(g)
	answers(u.t, g, 200)
	kept, fresh = end(), endFresh()
	u.table.add(what, kept, fresh)
	return kept, fresh
}

const unitConns = 16

// unnoticed is under for what no client may notice.
func (u *unit) unnoticed(what string, do func(g *load.Generator)) {
	u.t.Helper()
	kept, fresh := u.under(what, do)
	untouched(u.t, kept, unitConns)
	if fresh.Failures.Total() > 0 {
		u.t.Errorf("%s: new connections: %v; %+v", what, fresh.Failures, fresh.First)
	}
}

// TestSystemd is the life of the unit under a real systemd.
func TestSystemd(t *testing.T) {
	u := installUnit(t, box.Options{})
	out := u.Must("systemctl enable --now preforkd 2>/dev/null && systemctl is-active preforkd && ps -o comm= -p $(systemctl show --value -p MainPID preforkd)")
	if out != "active\npreforkd-anchor\n" {
		t.Errorf("%q", out)
	}
	if got := u.property("StatusText"); got != "2 of 2 workers ready" {
		t.Errorf("status %q", got)
	}
	main := u.property("MainPID")
	u.whole(1)
	given := u.limited()
	u.reloads()
	u.upgrades()
	back := given()
	u.restarts(main)
	u.deaths()
	u.security()
	u.instance()
	back()
	if t.Failed() {
		t.Logf("%s", u.log())
	}
}

// reloads: good, bad, and by HUP.
func (u *unit) reloads() {
	u.t.Helper()
	u.unnoticed("systemctl reload", func(*load.Generator) { u.Must("systemctl reload preforkd") })
	u.whole(2)
	u.unnoticed("systemctl reload, bad model", func(*load.Generator) {
		u.Must("cp -r /var/lib/preforkd/models/digits/1 /var/lib/preforkd/models/digits/2 && echo garbage >/var/lib/preforkd/models/digits/2/model.onnx")
		r := u.Run("systemctl reload preforkd")
		if r.Exit == 0 || u.property("ActiveState") != "active" {
			u.t.Errorf("a failed reload: exit status %d, the unit is %s: %s", r.Exit, u.property("ActiveState"), r.Out)
		}
		if got := u.property("StatusText"); !strings.Contains(got, "the last reload failed: ") || !strings.Contains(got, "digits") {
			u.t.Errorf("status %q", got)
		}
		u.Must("rm -r /var/lib/preforkd/models/digits/2")
	})
	for _, whom := range []string{"main", "all"} {
		before := u.status().Generation
		u.unnoticed("HUP to "+whom, func(*load.Generator) {
			u.Must("systemctl kill --signal=HUP --kill-who=" + whom + " preforkd")
			u.whole(before + 1)
		})
	}
}

// upgrades: by rename, and to a program that does not work.
func (u *unit) upgrades() {
	u.t.Helper()
	before := u.status()
	u.unnoticed("upgrade by rename", func(*load.Generator) {
		u.Must(`for p in preforkd preforkd-worker; do cp /usr/bin/$p /usr/bin/$p.new && mv /usr/bin/$p.new /usr/bin/$p; done
			preforkd upgrade --admin /run/preforkd/admin.sock`)
	})
	u.whole(before.Generation + 1)
	if now := u.status(); now.PID == before.PID {
		u.t.Error("the same supervisor as before")
	}
	u.unnoticed("upgrade to a bad program", func(*load.Generator) {
		r := u.Run(`cp -p /usr/bin/preforkd /usr/bin/good && printf '#!/bin/sh\necho no good >&2\nexit 7\n' >/usr/bin/preforkd.new &&
			chmod 755 /usr/bin/preforkd.new && mv /usr/bin/preforkd.new /usr/bin/preforkd && /usr/bin/good upgrade --admin /run/preforkd/admin.sock
			status=$?; mv /usr/bin/good /usr/bin/preforkd; exit $status`)
		if r.Exit != 4 || !strings.Contains(r.Out, "no good") {
			u.t.Errorf("exit status %d: %s", r.Exit, r.Out)
		}
	})
}

// restarts: clients wait, and numbers go on.
func (u *unit) restarts(main string) {
	u.t.Helper()
	if got := u.property("MainPID"); got != main {
		u.t.Errorf("the main process was %s and is %s", main, got)
	}
	generation := u.status().Generation
	n := times(5, 30)
	u.unnoticed(fmt.Sprintf("systemctl restart, %d times", n), func(g *load.Generator) {
		for range n {
			u.Must("systemctl restart preforkd")
			answers(u.t, g, 50)
		}
	})
	if now := u.status().Generation; now != generation+uint64(n) {
		u.t.Errorf("generation %d, and %d before %d restarts", now, generation, n)
	}
	if got := u.property("NFileDescriptorStore"); got == "0" {
		u.t.Error("nothing is stored")
	}
	// A stop is a stop: nobody listens, and what was kept is given back.
	u.Must("systemctl stop preforkd")
	if got := u.property("NFileDescriptorStore"); got != "0" {
		u.t.Errorf("%s descriptors are stored", got)
	}
	if conn, err := net.Dial("tcp", u.address); err == nil {
		conn.Close()
		u.t.Error("somebody listens")
	}
	u.Must("systemctl start preforkd")
	u.whole(1)
}

// deaths: of the supervisor, of a worker for want of memory, of the main process.
func (u *unit) deaths() {
	u.t.Helper()
	for what, signal := range map[string]string{"SIGSTOP of the supervisor": "STOP", "kill -9 of the supervisor": "KILL"} {
		before := u.status()
		u.unnoticed(what, func(g *load.Generator) {
			u.Must(fmt.Sprintf("kill -%s %d", signal, before.PID))
			if testkit.Await(func() bool { return !strings.Contains(u.Run("pgrep -x preforkd").Out, strconv.Itoa(before.PID)) }) != nil {
				u.t.Error("it was not replaced")
			}
			u.whole(before.Generation + 1)
		})
	}
	u.outOfMemory()
	n := times(1, 20)
	kept, fresh := u.under(fmt.Sprintf("kill -9 of the main process, %d times", n), func(g *load.Generator) {
		for range n {
			before := u.property("NRestarts")
			u.Must("kill -KILL $(systemctl show --value -p MainPID preforkd)")
			if testkit.Await(func() bool { return u.property("NRestarts") != before && u.property("ActiveState") == "active" }) != nil {
				u.t.Error("it was not started again")
			}
			answers(u.t, g, 100)
		}
	})
	for _, r := range []*load.Report{kept, fresh} {
		if refusals(r) > 0 {
			u.t.Errorf("refused: %v; %+v", r.Failures, r.First)
		}
	}
	if kept.Failures.Total() > uint64(n)*unitConns || fresh.Failures.Total() > uint64(n)*4 {
		u.t.Errorf("more than what was in flight: %v and %v", kept.Failures, fresh.Failures)
	}
}

// refusals are the dials that failed.
func refusals(r *load.Report) uint64 { return r.Failures[load.Refused] + r.Failures[load.Dial] }

// outOfMemory has the kernel kill one worker.
func (u *unit) outOfMemory() {
	u.t.Helper()
	if u.Run("test -e /sys/fs/cgroup/memory/memory.limit_in_bytes").Exit != 0 {
		u.t.Log("skipped: no memory cgroup: nothing is killed for want of memory here")
		return
	}
	u.Must("systemctl set-property --runtime preforkd MemoryMax=300M")
	defer u.Must("systemctl set-property --runtime preforkd MemoryMax=infinity")
	kept, fresh := u.under("OOM of one worker", func(*load.Generator) {
		conn, err := net.Dial("tcp", u.address)
		if err != nil {
			u.t.Error(err)
			return
		}
		defer conn.Close()
		const much = 800 << 20
		fmt.Fprintf(conn, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", much)
		chunk := make([]byte, 1<<20)
		for range much / len(chunk) {
			if _, err := conn.Write(chunk); err != nil {
				break // it has been killed
			}
		}
		if testkit.Await(func() bool { return strings.Contains(u.log(), "memory cgroup counts an OOM kill") }) != nil {
			u.t.Error("nobody was killed")
		}
		u.whole(1)
	})
	if kept.Failures.Total() > unitConns || refusals(kept)+refusals(fresh) > 0 || u.property("ActiveState") != "active" {
		u.t.Errorf("%v and %v; the unit is %s", kept.Failures, fresh.Failures, u.property("ActiveState"))
	}
}

// security prints what systemd makes of the unit, with models that run.
func (u *unit) security() {
	u.t.Helper()
	for _, name := range []string{"preforkd.service", "preforkd@.service"} {
		out := u.Run("systemd-analyze security --no-pager " + strings.Replace(name, "@", "@x", 1)).Out
		m := regexp.MustCompile(`exposure level for \S+: ([0-9.]+) `).FindStringSubmatch(out)
		if m == nil {
			u.t.Errorf("%s: %s", name, out)
			continue
		}
		score, err := strconv.ParseFloat(m[1], 64)
		if err != nil || score > 2.0 {
			u.t.Errorf("%s: security %s, %v", name, m[1], err)
		}
		u.table.note("systemd-analyze security %s: %s", name, m[1])
	}
}

// instance starts a second service, of a port below 1024.
func (u *unit) instance() {
	u.t.Helper()
	u.write("etc", "listen: [\"127.0.0.1:981\"]\n"+strings.Replace(unitSettings, "models: /var/lib/preforkd/", "models: /var/lib/preforkd-web/", 1), "/etc/preforkd/web.yaml")
	out := u.Must(`mkdir -p /var/lib/preforkd-web /etc/systemd/system/preforkd@web.service.d && cp -r /opt/models /var/lib/preforkd-web/
		printf '[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\nPrivateUsers=no\n' >/etc/systemd/system/preforkd@web.service.d/port.conf
		systemctl daemon-reload && systemctl start preforkd@web && preforkd status --admin /run/preforkd-web/admin.sock && curl -s http://127.0.0.1:981/readyz`)
	if !strings.Contains(out, "127.0.0.1:981") {
		u.t.Errorf("%s", out)
	}
}

// TestSystemdSockets: the first connection starts the service, and after a stop the next one.
func TestSystemdSockets(t *testing.T) {
	u := installUnit(t, box.Options{})
	u.configure("listen: [\"fd:http\"]\n" + unitSettings)
	u.write("socket", "[Socket]\nListenStream=\nListenStream="+u.address+"\n", "/etc/systemd/system/socket.conf")
	u.Must(`mkdir -p /etc/systemd/system/preforkd.socket.d && mv /etc/systemd/system/socket.conf /etc/systemd/system/preforkd.socket.d/
		systemctl daemon-reload && systemctl start preforkd.socket`)
	if got := u.property("ActiveState"); got != "inactive" {
		t.Errorf("the service is %s", got)
	}
	u.unnoticed("socket activation, restart, stop, next connection", func(g *load.Generator) {
		u.whole(1)
		u.Must("systemctl restart preforkd")
		answers(t, g, 50)
	})
	u.Must("systemctl stop preforkd")
	if status, body := get(t, "http://"+u.address+"/v2"); status != 200 {
		t.Errorf("%d: %s", status, body)
	}
	u.whole(1)
	if t.Failed() {
		t.Logf("%s", u.log())
	}
}

// TestSystemdRefusals: what a unit lacks is said, with what to do, and ends the start with its
// own status.
func TestSystemdRefusals(t *testing.T) {
	u := installUnit(t, box.Options{})
	good := "listen: [\"" + u.address + "\"]\n" + unitSettings
	for _, c := range []struct {
		what, dropIn, config string
		status               string
		says                 []string
	}{
		{
			"a port below 1024", "[Service]\nPrivateUsers=yes\n", "listen: [\"127.0.0.1:81\"]\n" + unitSettings, "77",
			[]string{"listen on 127.0.0.1:81: permission denied", "preforkd.socket"},
		},
		{
			"a cache that is read-only", "[Service]\nCacheDirectory=\nEnvironment=PREFORKD_CACHE_DIR=/usr/share\n", good, "77",
			[]string{"/usr/share", "read-only file system"},
		},
		{
			"a model directory that is not there", "", strings.Replace(good, "/var/lib/preforkd/models", "/nowhere", 1), "78",
			[]string{"/nowhere"},
		},
		{
			"a socket that nobody gives", "", "listen: [\"fd:http\"]\n" + unitSettings, "69",
			[]string{"no socket of that name was inherited", "FileDescriptorName=http"},
		},
		{
			"a configuration that is wrong", "", good + "wrokers: 2\n", "78",
			[]string{"preforkd.yaml:", "did you mean workers?"},
		},
	} {
		u.configure(c.config)
		u.write("dropin", c.dropIn, "/etc/systemd/system/preforkd.service.d/test.conf")
		u.Must("systemctl daemon-reload; journalctl --rotate -q; journalctl --vacuum-time=1s -q")
		if r := u.Run("systemctl start preforkd"); r.Exit == 0 {
			t.Errorf("%s: it was started", c.what)
		}
		if got := u.property("ExecMainStatus"); got != c.status {
			t.Errorf("%s: exit status %s, want %s", c.what, got, c.status)
		}
		log := u.log()
		for _, text := range c.says {
			if !strings.Contains(log, text) {
				t.Errorf("%s: not said: %s\n%s", c.what, text, log)
			}
		}
		u.Run("systemctl stop preforkd; systemctl reset-failed preforkd")
	}

	// Without RuntimeDirectory= the service runs, and says who cannot reach its admin socket.
	u.configure(good)
	u.write("dropin", "[Service]\nRuntimeDirectory=\n", "/etc/systemd/system/preforkd.service.d/test.conf")
	u.Must("systemctl daemon-reload; systemctl start preforkd; systemctl reload preforkd")
	if log := u.log(); !strings.Contains(log, "RuntimeDirectory=") {
		t.Errorf("%s", log)
	}
	if r := u.Run("preforkd status"); r.Exit != 69 || !strings.Contains(r.Out, "RuntimeDirectory=") {
		t.Errorf("%d: %s", r.Exit, r.Out)
	}
}

// TestSystemdWaits: a start that takes longer than TimeoutStartSec= is not given up while workers
// boot, and neither is a stop while a request is answered.
func TestSystemdWaits(t *testing.T) {
	u := installUnit(t, box.Options{})
	u.write("slow", "#!/bin/sh\nsleep 4\nexec /usr/bin/preforkd-worker \"$@\"\n", "/usr/bin/slow-worker")
	u.Must("chmod 755 /usr/bin/slow-worker")
	u.configure("listen: [\"" + u.address + "\"]\n" + strings.Replace(unitSettings, "worker: {", "worker: {command: [/usr/bin/slow-worker], kind: preforkd, ", 1))
	u.write("dropin", "[Service]\nTimeoutStartSec=3\nTimeoutStopSec=3\n", "/etc/systemd/system/preforkd.service.d/test.conf")
	u.Must("systemctl daemon-reload; systemctl start preforkd")
	u.whole(1)

	conn, err := net.Dial("tcp", u.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := body(sample)
	fmt.Fprintf(conn, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(text))
	answer := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(conn, answer); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", answer, err)
	}
	u.Must("systemctl stop --no-block preforkd")
	time.Sleep(5 * time.Second) // longer than TimeoutStopSec=
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer = answer[:len("HTTP/1.1 200")]
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 200" {
		t.Errorf("%q, %v", answer, err)
	}
	if testkit.Await(func() bool { return u.property("ActiveState") == "inactive" }) != nil || u.property("Result") != "success" {
		t.Errorf("%s, %s", u.property("ActiveState"), u.property("Result"))
	}

	// The main process stands still: systemd hears nothing of it, and starts it again.
	u.configure("listen: [\"" + u.address + "\"]\n" + unitSettings)
	u.write("dropin", "[Service]\nWatchdogSec=2\n", "/etc/systemd/system/preforkd.service.d/test.conf")
	u.Must("systemctl daemon-reload; systemctl start preforkd")
	kept, fresh := u.under("SIGSTOP of the main process", func(*load.Generator) {
		u.Must("kill -STOP $(systemctl show --value -p MainPID preforkd)")
		if testkit.Await(func() bool { return u.property("NRestarts") == "1" && u.property("ActiveState") == "active" }) != nil {
			t.Errorf("%s, %s restarts", u.property("ActiveState"), u.property("NRestarts"))
		}
	})
	if refusals(kept)+refusals(fresh) > 0 || kept.Failures.Total() > unitConns {
		t.Errorf("%v and %v", kept.Failures, fresh.Failures)
	}
	if t.Failed() {
		t.Logf("%s", u.log())
	}
}
