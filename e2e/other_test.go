package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// python is Debian's: it has the packages of Debian.
const python = "/usr/bin/python3"

// needs fails the test where a program of the examples is missing.
func needs(t *testing.T, pkg, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("this test needs %s of Debian (apt-get install %s): %v: %s", name, pkg, err, out)
	}
}

// shipped starts one of the configurations in configs; s.Config is the test's own copy.
func shipped(t *testing.T, name string) (s *testkit.Service, socket, text string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "configs", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s, socket = reloadable(t, testkit.Options{Config: string(data), Bare: true, Set: []string{
		"listen=127.0.0.1:0", "worker.dir=" + filepath.Join(testkit.Root(t), "configs", "examples"),
	}})
	return s, socket, string(data)
}

// who is what the examples answer.
type who struct {
	PID              int
	Slot, Generation string
}

func answerer(t *testing.T, url string) (w who) {
	t.Helper()
	status, body := get(t, url)
	if err := json.Unmarshal([]byte(body), &w); err != nil || status != 200 {
		t.Fatalf("%d, %v: %s", status, err, body)
	}
	return w
}

// TestExamples runs the shipped configurations of other programs under busy keep-alive
// clients: reloads, a crash and a version that fails at boot. A leaving worker may close
// the connections that it holds, each once; nothing else may fail.
func TestExamples(t *testing.T) {
	for _, c := range []struct {
		name        string
		pkg, tool   string
		check       []string
		good, fails string // how the second version's command differs
		says        string
	}{
		{"uvicorn", "python3-uvicorn", python, []string{"-c", "import uvicorn"}, "app:app", "missing:app", "Could not import module \"missing\""},
		{"node", "nodejs", "node", []string{"--version"}, "server.js", "missing.js", "Cannot find module"},
	} {
		t.Run(c.name, func(t *testing.T) {
			needs(t, c.pkg, c.tool, c.check...)
			const conns = 8
			s, socket, text := shipped(t, c.name)
			g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true, Request: load.Get("/hello")})
			answers(t, g, 200)
			for i := range times(2, 20) {
				if out, code := command(t, socket, "reload"); code != 0 {
					t.Fatalf("%d: %s", code, out)
				}
				answers(t, g, 200)
				if w := answerer(t, s.URL); w.Generation != fmt.Sprint(i+2) {
					t.Errorf("answered by %+v after reload %d", w, i+1)
				}
			}
			reloads := times(2, 20)

			before := s.Workers()
			n := s.Reports()
			kill(t, before[0], syscall.SIGKILL)
			n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
			s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
			answers(t, g, 200)

			was := answerer(t, s.URL).Generation
			write(t, s.Config, strings.Replace(text, c.good, c.fails, 1))
			out, code := command(t, socket, "reload")
			if code != int(ipc.ExitRolledBack) || !strings.Contains(out, "the canary did not become ready") || !strings.Contains(out, c.says) {
				t.Errorf("%d: %s", code, out)
			}
			if now := answerer(t, s.URL).Generation; now != was {
				t.Errorf("generation %s answers, not %s", now, was)
			}
			answers(t, g, 200)

			r := end()
			t.Logf("%d requests, %d reloads, one worker killed: failures %v, closes %+v", r.Requests, reloads, r.Failures, r.Closes)
			// Each client loses at most the request under way when a worker leaves, and each worker leaves once.
			if limit := uint64(conns * (2*reloads + 1)); r.Failures.Total() > limit || r.Failures[load.Status] > 0 || r.Failures[load.Timeout] > 0 {
				t.Errorf("failures %v, at most %d connections can have been lost; first: %+v", r.Failures, limit, r.First[:min(len(r.First), 5)])
			}
		})
	}
}

// server is a worker as a Python program without packages; its first argument says what is
// wrong with it.
const server = `
import http.server, os, signal, socket, subprocess, sys, threading, time
wrong, fds = sys.argv[1], [int(fd) for fd in sys.argv[2:]]
if wrong == "exits": sys.exit("cannot go on")
if wrong == "hangs": time.sleep(1000)
if wrong == "daemon":
    subprocess.Popen(["/bin/sleep", "1000"])
    print("gone to the background", flush=True)
    os._exit(0)
if wrong == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        if wrong == "garbage":
            self.wfile.write(b"220 mail.example.org ESMTP\r\n")
            return
        if wrong == "stalls" and os.path.exists(sys.argv[0] + ".stall"): time.sleep(1000)
        body = (os.environ["PREFORKD_POOL"] + " " + os.environ["PREFORKD_SLOT"] + " " + str(os.getpid())).encode()
        self.send_response(500 if wrong == "sick" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

for fd in fds:
    s = http.server.ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
    s.socket.close()
    s.socket = socket.socket(fileno=os.dup(fd))
    s.socket.setblocking(True)
    s.get_request = (lambda s: lambda: s.socket.accept()[:1] + ("",))(s)
    s.server_name, s.server_port = "localhost", 0
    threading.Thread(target=s.serve_forever).start()
`

// pythonServer writes that program and returns its path.
func pythonServer(t *testing.T) string {
	t.Helper()
	needs(t, "python3", python, "--version")
	path := filepath.Join(t.TempDir(), "server.py")
	write(t, path, server)
	return path
}

// serving is a configuration with that server as worker.
func serving(path, wrong string) string {
	boot := map[string]string{"hangs": "2s", "garbage": "5s", "sick": "5s"}[wrong] // those that never become ready
	if boot == "" {
		boot = "60s"
	}
	return fmt.Sprintf("worker: {command: [%s, %s, %s, \"{fd}\"]}\ntimeouts: {boot: %s, drain: 500ms, request: 20s}\n", python, path, wrong, boot)
}

// TestOtherProgramsThatFail: what is wrong with a program ends the first start, and takes a
// reload to it back.
func TestOtherProgramsThatFail(t *testing.T) {
	path := pythonServer(t)
	s, socket := reloadable(t, testkit.Options{Config: serving(path, "fine")})
	for wrong, says := range map[string]string{
		"exits":   "cannot go on",
		"hangs":   "not ready within timeouts.boot (2s)",
		"garbage": "answering its probe: GET /: no answer in HTTP",
		"sick":    "answering its probe: GET /: status 500",
		"daemon":  "gone to the background",
	} {
		t.Run(wrong, func(t *testing.T) {
			before := answersFrom(t, s.URL)
			write(t, s.Config, serving(path, wrong))
			if out, code := command(t, socket, "reload"); code != int(ipc.ExitRolledBack) || !strings.Contains(out, says) {
				t.Errorf("%d: %s", code, out)
			}
			if after := answersFrom(t, s.URL); !strings.HasPrefix(after, "main ") || len(s.Workers()) != 2 {
				t.Errorf("%q answered, now %q, %v", before, after, s.Workers())
			}
			refuses(t, testkit.Options{Config: serving(path, wrong)}, ipc.ExitBoot, says)
		})
	}
	t.Run("missing", func(t *testing.T) {
		config := "worker: {command: [/no/such/program]}\n"
		write(t, s.Config, config)
		if out, code := command(t, socket, "reload"); code == 0 || !strings.Contains(out, "worker.command: ") || !strings.Contains(out, "/no/such/program") {
			t.Errorf("%d: %s", code, out)
		}
		answersFrom(t, s.URL)
		refuses(t, testkit.Options{Config: config}, ipc.ExitUnavailable, "worker.command: ", "/no/such/program")
	})
	t.Run("placeholder", func(t *testing.T) {
		config := "worker: {command: [/bin/true, \"--fd={fd:nobody}\"]}\n"
		refuses(t, testkit.Options{Config: config}, ipc.ExitConfig, "worker.command: {fd:nobody} is no listening socket of pool main", "{fd:NAME} with one of http")
	})
}

// answersFrom returns what the server's worker says of itself.
func answersFrom(t *testing.T, url string) string {
	t.Helper()
	status, body := get(t, url)
	if status != 200 {
		t.Errorf("%d: %s", status, body)
	}
	return body
}

// TestOtherProgramsThatStay: one that ignores TERM is killed after the drain clock, and what
// a program started goes with it.
func TestOtherProgramsThatStay(t *testing.T) {
	path := pythonServer(t)
	s, socket := reloadable(t, testkit.Options{Config: serving(path, "deaf")})
	before := s.Workers()
	write(t, s.Config, serving(path, "fine"))
	if out, code := command(t, socket, "reload"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	for _, pid := range before {
		testkit.Gone(t, pid)
	}
	if text := s.LogText(); !strings.Contains(text, `reason="drain clock"`) {
		t.Errorf("%s", text)
	}
	answersFrom(t, s.URL)
}

// TestOtherProgramIsProbed: one that serves a socket of its own beside the shared one is
// replaced when it answers there no more.
func TestOtherProgramIsProbed(t *testing.T) {
	path := pythonServer(t)
	config := fmt.Sprintf("worker: {command: [%s, %s, stalls, \"{fd}\", \"{probe}\"], probe: {interval: 50ms, timeout: 200ms, failures: 2}}\n", python, path)
	s, socket := reloadable(t, testkit.Options{Config: config})
	before := s.Workers()
	write(t, path+".stall", "")
	if err := testkit.Await(func() bool { return strings.Contains(s.LogText(), "worker does not answer its probe") }); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".stall"); err != nil {
		t.Fatal(err)
	}
	if err := testkit.Await(func() bool {
		now := s.Workers()
		return len(now) == 2 && !slices.Equal(now, before) && status1(t, socket).Pools[0].Slots[0].State == "ready" && status1(t, socket).Pools[0].Slots[1].State == "ready"
	}); err != nil {
		t.Errorf("%v: %v\n%s", err, s.Workers(), s.LogText())
	}
	answersFrom(t, s.URL)
}

// TestRollbackOfOtherPrograms: the command of an earlier generation runs again.
func TestRollbackOfOtherPrograms(t *testing.T) {
	path := pythonServer(t)
	s, socket := reloadable(t, testkit.Options{Config: serving(path, "fine")})
	write(t, s.Config, serving(path, "deaf"))
	if out, code := command(t, socket, "reload"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	if out, code := command(t, socket, "rollback"); code != 0 || !strings.Contains(out, "generation 3 serves") {
		t.Errorf("%d: %s", code, out)
	}
	answersFrom(t, s.URL)
	for _, pid := range s.Workers() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(line), "\x00fine\x00") {
			t.Errorf("%q, %v", line, err)
		}
	}
}

// TestOtherProgramsEndWithTheMainProcess: nobody is left to hold the address.
func TestOtherProgramsEndWithTheMainProcess(t *testing.T) {
	path := pythonServer(t)
	s, _ := reloadable(t, testkit.Options{Config: serving(path, "fine")})
	workers := s.Workers()
	s.Signal(syscall.SIGKILL)
	for _, pid := range workers {
		testkit.Gone(t, pid)
	}
}

// TestRestartOfOtherPrograms: the replacement is ready before the former worker leaves.
func TestRestartOfOtherPrograms(t *testing.T) {
	path := pythonServer(t)
	s, socket := reloadable(t, testkit.Options{Config: serving(path, "fine")})
	before := s.Workers()
	if out, code := command(t, socket, "restart", "0"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	after := s.Workers()
	if len(after) != 2 || slices.Equal(before, after) {
		t.Errorf("%v, before %v", after, before)
	}
	answersFrom(t, s.URL)
}
