package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// villain is a helper without the library: what it answers is the body of the request, word by
// word, and then it closes the connection.
const villain = `
import os, socket, threading, time

META = b'{"name":"v","inputs":[{"name":"in","datatype":"BYTES","shape":[1]}],"outputs":[{"name":"out","datatype":"BYTES","shape":[1]}]}'
GOOD = b'{"outputs":[{"name":"out","datatype":"BYTES","shape":[1],"data":["good"]}]}'

def answer(body, status=b"200 OK"):
    return b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body

def serve(conn):
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more:
            return
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = header = 0
    for line in head.split(b"\r\n"):
        key, _, value = line.lower().partition(b":")
        size = int(value) if key == b"content-length" else size
        header = int(value) if key == b"inference-header-content-length" else header
    while len(body) < size:
        body += conn.recv(65536)
    say = {
        b"good": answer(GOOD),
        b"garbage": b"\x00\x01 what do you want?\r\n\r\n",
        b"html": answer(b"<html>not found</html>"),
        b"half": answer(GOOD)[:-9],
        b"nothing": b"",
        b"endless": b"HTTP/1.1 200 OK\r\n\r\n" + GOOD,
        b"refuse": answer(b'{"error":"I would rather not"}', b"503 No"),
        b"blame": answer(b'{"error":"that is no tune"}', b"422 No"),
        b"other": answer(GOOD.replace(b'"out"', b'"tuo"')),
        b"large": answer(b"x" * (3 << 20)),
        b"redirect": b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
    }
    if head.startswith(b"GET"):
        conn.sendall(answer(META if b"models" in head.split()[1] else b"{}"))
    elif body[header + 4:] == b"slow":
        time.sleep(60)
    else:
        conn.sendall(say[body[header + 4:]])

def run(conn):
    with conn:
        try:
            serve(conn)
        except OSError:
            pass

listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    conn, _ = listener.accept()
    threading.Thread(target=run, args=(conn,), daemon=True).start()
`

// TestHelpersThatFail: whatever a helper does to a request, its client is told within its deadline,
// with 502 or 504 and the reason; the next request is answered, and so is one to another pool while
// all of this one's places are taken.
func TestHelpersThatFail(t *testing.T) {
	needs(t, "python3", python, "--version")
	path := filepath.Join(t.TempDir(), "villain.py")
	write(t, path, villain)
	s, _ := reloadable(t, testkit.Options{Workers: 1, Config: fmt.Sprintf(`
http: {max_body: 2MiB}
routes:
  /v: {steps: [helper:villains/v]}
  /good: {steps: [helper:saints/v]}
pools:
  villains: {worker: {kind: helper, command: [%[1]s, %[2]s]}, helper: {connections: 1, max_wait: 200ms, max_waiting: 3}}
  saints: {worker: {kind: helper, command: [%[1]s, %[2]s]}}
`, python, path)})
	ask := func(word, within string) (int, string, time.Duration) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, s.URL+"/v", strings.NewReader(word))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Request-Timeout", within)
		begin := time.Now()
		resp, err := fresh.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		status, body := answered(t, resp)
		return status, body, time.Since(begin)
	}
	const who = `{"error":"helper villains (slot 0, pid `
	for word, want := range map[string]string{
		"garbage":  "502 its answer is no HTTP: ",
		"html":     "502 its answer cannot be used: body: '<' where '{' is expected",
		"half":     "502 it closed the connection before its answer was complete",
		"nothing":  "502 it closed the connection before its answer was complete",
		"endless":  "502 its answer is no HTTP: neither Content-Length nor chunks",
		"refuse":   "502 status 503: I would rather not",
		"blame":    "422 that is no tune",
		"other":    `502 its answer cannot be used: outputs[0].name: no output \"tuo\" is declared`,
		"large":    "502 its answer is larger than 2097152 bytes (http.max_body)",
		"redirect": "502 status 302: ",
		"slow":     "504 gave no answer within X-Request-Timeout, which is 300ms",
	} {
		within := "60s"
		if word == "slow" {
			within = "300ms"
		}
		status, body, _ := ask(word, within)
		code, text, _ := strings.Cut(want, " ")
		if fmt.Sprint(status) != code || !strings.HasPrefix(body, who) || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s, want %s", word, status, body, want)
		}
		if status, body, _ := ask("good", "60s"); status != 200 || body != "good" {
			t.Errorf("after %s: %d %s", word, status, body)
		}
	}

	// One request has the only place of the pool, three wait, the others are refused.
	var all sync.WaitGroup
	statuses := make(chan int, 8)
	for range cap(statuses) {
		all.Go(func() {
			status, _, _ := ask("slow", "1s")
			statuses <- status
		})
	}
	for range 20 {
		if status, body := post(t, s.URL+"/good", "good"); status != 200 || body != "good" {
			t.Errorf("beside a pool whose places are taken: %d %s", status, body)
		}
	}
	all.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	if count[504] != 1 || count[503] != 7 {
		t.Errorf("%v", count)
	}
}

// TestHelperDies: the client whose request ends a helper gets 502 and the reason; when all helpers of
// a pool are away requests wait for one, and are told when none comes. Other routes serve.
func TestHelperDies(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Workers: 1, Config: strings.ReplaceAll(acting(actors(t, "text"), ""), "max_wait: 20s", "max_wait: 300ms")})
	status, body := post(t, s.URL+"/ab", "die-in-a")
	if status != 502 || !strings.Contains(body, "helper a (slot ") || !strings.Contains(body, "it closed the connection before its answer was complete") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := post(t, s.URL+"/ab", "x"); status != 200 || body != "x a1 b1" {
		t.Errorf("the other helper: %d %s", status, body)
	}
	if err := testkit.Await(func() bool { return everyReady(status1(t, socket)) }); err != nil {
		t.Fatal(err)
	}
	for slot := range 2 { // alive, and deaf to everything
		pid := poolPID(t, socket, "a", slot)
		if !testkit.Freeze(t, pid) {
			t.Fatal("it has ended")
		}
		defer kill(t, pid, syscall.SIGCONT) // so that it can leave
	}
	req, err := http.NewRequest(http.MethodPost, s.URL+"/ab", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Timeout", "200ms")
	resp, err := fresh.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := answered(t, resp); status != 504 || !strings.Contains(body, "gave no answer within X-Request-Timeout, which is 200ms") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := post(t, s.URL+"/b", "x"); status != 200 || body != "x b1" {
		t.Errorf("another pool: %d %s", status, body)
	}
	if status, _ := get(t, s.URL+"/readyz"); status != 200 {
		t.Errorf("readyz: %d", status)
	}
}

// TestHelperLeaks: helpers that grow beyond recycle.memory, and those that have had as many requests
// as they may, are replaced while clients notice nothing.
func TestHelperLeaks(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: acting(actors(t, "text"), ", recycle: {memory: 60MiB}")})
	for range 2 * 16 { // 64 MiB in each of two
		if status, body := post(t, s.URL+"/ab", "leak"); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	const conns = 4
	_, end := storm(t, s, load.Options{Conns: conns, Keepalive: true, Timeout: testkit.Limit, Request: load.Post("/ab", "text/plain", []byte("x"))})
	awaitRecycled(t, socket, "memory", 1)
	untouched(t, end(), conns)

	s, socket = reloadable(t, testkit.Options{Config: acting(actors(t, "text"), ", recycle: {requests: 50}")})
	_, end = storm(t, s, load.Options{Conns: conns, Keepalive: true, Timeout: testkit.Limit, Request: load.Post("/ab", "text/plain", []byte("x"))})
	awaitRecycled(t, socket, "requests", 3)
	untouched(t, end(), conns)
}

// TestHelpersOutliveNoSupervisor: when the supervisor dies its helpers leave; requests wait for those
// that its successor starts, and workers of before ask them by the directory that they have.
func TestHelpersOutliveNoSupervisor(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: acting(actors(t, "text"), "")})
	g, end := storm(t, s, load.Options{Conns: 4, Keepalive: true, Timeout: testkit.Limit, Request: load.Post("/ab", "text/plain", []byte("x"))})
	answers(t, g, 50)
	kill(t, s.Supervisor(), syscall.SIGKILL)
	answers(t, g, 50)
	if err := testkit.Await(func() bool {
		out, code := command(t, socket, "status")
		return code == 0 && strings.Contains(out, "generation 2") && everyReady(status1(t, socket))
	}); err != nil {
		t.Error(err)
	}
	answers(t, g, 50)
	untouched(t, end(), 4)
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "preforkd-*", "helpers")); err != nil {
		t.Error(err)
	} else {
		for _, dir := range left {
			files, _ := os.ReadDir(dir)
			if len(files) > 4 {
				t.Errorf("%s: %d sockets of 4 helpers", dir, len(files))
			}
		}
	}
}
