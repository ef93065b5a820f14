package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// hall is a service of two workers whose models take as long as they are asked to.
func hall(t *testing.T, configuration string, set ...string) *line {
	t.Helper()
	set = append(set, "ops.listen=127.0.0.1:0", "worker.max_crashes=1000", "worker.max_backoff=1ms")
	l := &line{site: clocked(t, testkit.Options{Workers: 2, Set: set}, configuration)}
	l.ops = operations(t, l.socket)
	return l
}

// occupy keeps both workers busy until the connections that it returns are closed: whichever
// worker the second request comes to, it runs where nothing does.
func (l *line) occupy() (both []net.Conn) {
	l.t.Helper()
	for i := range 2 {
		both = append(both, l.send(hours))
		l.await("preforkd_concurrency_in_use", float64(i+1))
	}
	return both
}

// queue sends requests, each on a connection of its own, and returns when all of them wait.
func (l *line) queue(n int, request []byte) (all []net.Conn) {
	l.t.Helper()
	waiting := numbers(l.t, l.ops)["preforkd_queue_depth"]
	for range n {
		all = append(all, l.send(request))
	}
	l.await("preforkd_queue_depth", waiting+float64(n))
	return all
}

// allAnswered demands 200 on each connection.
func (l *line) allAnswered(all []net.Conn) {
	l.t.Helper()
	for i, c := range all {
		if resp, body := l.answered(c); resp.StatusCode != 200 {
			l.t.Fatalf("request %d of %d: %s %s", i, len(all), resp.Status, body)
		}
	}
}

// trivial demands that health is answered.
func (l *line) trivial() {
	l.t.Helper()
	for range 10 {
		if status, body := get(l.t, l.URL+"/readyz"); status != 200 {
			l.t.Errorf("health: %d %s", status, body)
		}
	}
}

func closeAll(all []net.Conn) {
	for _, c := range all {
		c.Close()
	}
}

// TestKilledWithAQueue kills a worker, and then the other, while 500 requests wait: they are in the
// kernel, and those that come in their place answer every one.
func TestKilledWithAQueue(t *testing.T) {
	const waiting = 500
	l := hall(t, "timeouts: {request: 10m}\n")
	l.occupy()
	all := l.queue(waiting, brief)
	l.trivial()
	if p := status1(t, l.socket).Pools[0]; p.Waiting != waiting || p.Oldest <= 0 {
		t.Errorf("%d wait, the first for %v", p.Waiting, time.Duration(p.Oldest))
	}
	if testkit.Await(func() bool { return numbers(t, l.ops)["preforkd_requests_queued_total"] >= waiting }) != nil {
		t.Error("they were not counted")
	}
	for _, pid := range l.Workers() {
		kill(t, pid, syscall.SIGKILL)
	}
	l.allAnswered(all)
	l.whole()
	l.await("preforkd_queue_depth", 0)
	if n := numbers(t, l.ops)["preforkd_http_requests_lost_total"]; n != 2 {
		t.Errorf("%v requests lost", n)
	}
}

// TestReplacedWithAQueue reloads while 100 requests wait and no worker takes any: the new ones do.
func TestReplacedWithAQueue(t *testing.T) {
	l := hall(t, "reload: {bake: 1ms, trial: 1ms}\ntimeouts: {request: 10m, drain: 10m}\n")
	busy := l.occupy()
	all := l.queue(100, brief)
	r := l.reload()
	l.allAnswered(all)
	closeAll(busy)
	r.end(0)
	all = nil
	for range 20 {
		all = append(all, l.send(brief))
	}
	l.allAnswered(all)
}

// TestHandoffDuringDrain: a worker that drains puts what comes on its connections where others take it.
func TestHandoffDuringDrain(t *testing.T) {
	l := hall(t, "reload: {bake: 1ms, trial: 1ms}\ntimeouts: {request: 10m, drain: 10m}\n")
	g, end := l.load(load.Options{Conns: 16, Request: brief})
	for range times(4, 60) {
		l.reload().end(0)
		answers(t, g, 64)
	}
	untouched(t, end(), 16)
}

// TestStopWithAQueue: a service that stops answers what waits in the queue before it ends.
func TestStopWithAQueue(t *testing.T) {
	l := hall(t, "timeouts: {request: 10m, drain: 10m}\n")
	busy := l.occupy()
	all := l.queue(40, brief)
	n := l.Reports()
	l.Signal(syscall.SIGTERM)
	l.AwaitAfter(n, "STOPPING=1")
	closeAll(busy)
	l.allAnswered(all)
	if code := l.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestBoundedForAll: the bound of the queue is that of all workers together, wherever a request comes
// in; those that are pinned count.
func TestBoundedForAll(t *testing.T) {
	l := hall(t, "", "queue.max_requests=6")
	busy := l.occupy()
	all := l.queue(4, brief)
	all = append(all, l.queue(2, inChunks("/v2/models/rounds/infer", sized(3)))...)
	for range 6 {
		resp, body := l.answered(l.send(brief))
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "queue.max_requests") {
			t.Errorf("%s %v: %s", resp.Status, resp.Header, body)
		}
	}
	l.await(`preforkd_requests_refused_total{reason="full"}`, 6)
	l.trivial()
	closeAll(busy)
	l.allAnswered(all)
}

// ones is the body of a request that any worker answers at once.
var ones = `{"features":[` + strings.TrimSuffix(strings.Repeat("1,", 64), ",") + `]}`

// inChunks is a request that only the worker that reads it can answer.
func inChunks(path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, len(body), body)
}

// TestClientsThatAreSlow: those that send one byte or half of a request hold no permit and wait in no
// queue, whether workers are busy or not; when they send the rest they are answered.
func TestClientsThatAreSlow(t *testing.T) {
	l := hall(t, "http: {header_timeout: 10m}\ntimeouts: {request: 10m}\n")
	large := load.Post("/v2/models/rounds/infer", "application/json", append([]byte(sized(3)), strings.Repeat(" ", 200_000)...))
	parts := []int{1, 60, len(large) / 2, len(large) - 1}
	start := func() (all []net.Conn) {
		for _, n := range parts {
			for range 5 {
				all = append(all, l.send(large[:n]))
			}
		}
		return all
	}
	all := start()
	for range 20 { // those are seen before these
		l.allAnswered([]net.Conn{l.send(brief)})
	}
	l.await("preforkd_concurrency_in_use", 0)
	busy := l.occupy()
	all = append(all, start()...)
	waiting := l.queue(20, brief)
	l.trivial()
	l.await("preforkd_queue_depth", float64(len(waiting)))
	closeAll(busy)
	l.allAnswered(waiting)
	for i, c := range all {
		if _, err := c.Write(large[parts[i/5%len(parts)]:]); err != nil {
			t.Fatal(err)
		}
	}
	l.allAnswered(all)
}

// TestQueueFullInTheKernel: what the kernel has no room for waits in the workers, and all are answered.
func TestQueueFullInTheKernel(t *testing.T) {
	const waiting = 200
	l := hall(t, "timeouts: {request: 10m}\n")
	l.shrinkQueues()
	busy := l.occupy()
	all := l.queue(waiting, brief)
	l.await("preforkd_queue_depth", waiting)
	if testkit.Await(func() bool { return numbers(t, l.ops)["preforkd_requests_queue_full_total"] > 0 }) != nil {
		t.Error("the queue was never full")
	}
	l.trivial()
	closeAll(busy)
	l.allAnswered(all)
}

// shrinkQueues leaves the queues of connections as little room as the kernel lets them have.
func (l *line) shrinkQueues() {
	l.t.Helper()
	pidfd, err := unix.PidfdOpen(l.PID, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer unix.Close(pidfd)
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", l.PID))
	if err != nil {
		l.t.Fatal(err)
	}
	shrunk := 0
	for _, name := range names {
		if target, err := os.Readlink(name); err != nil || !strings.HasPrefix(target, "socket:") {
			continue
		}
		n := 0
		if _, err := fmt.Sscan(filepath.Base(name), &n); err != nil {
			l.t.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		if err != nil {
			continue // it has been closed
		}
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_SEQPACKET {
			if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1) == nil {
				shrunk++
			}
		}
		unix.Close(fd)
	}
	if shrunk < 4 {
		l.t.Fatalf("%d ends of queues found", shrunk)
	}
}

// TestManyConnections: as many connections as there may be ask at once, again and again; nobody is lost.
func TestManyConnections(t *testing.T) {
	conns := times(600, 5000)
	descriptorsFor(t, conns)
	l := hall(t, "queue: {max_requests: 0, max_wait: 0s}\ntimeouts: {request: 10m}\n")
	g, end := storm(t, l.Service, load.Options{Conns: conns, Keepalive: true, Timeout: 2 * testkit.Limit, Request: brief})
	answers(t, g, uint64(times(4, 40)*conns))
	untouched(t, end(), uint64(conns))
}

// inhaled is how long something of a sample may have been otherwise: a taker has been woken, and has
// not been scheduled. It is generous, for a machine that does other things.
const inhaled = 250 * time.Millisecond

// TestWorkConservation samples the scoreboard while eight clients keep two workers busy: nobody waits
// while a permit is free. By how many others somebody is overtaken it tells, and demands nothing: where
// processors are busy a worker may see a request long after it came.
func TestWorkConservation(t *testing.T) {
	const conns = 8
	l := hall(t, "")
	long := load.Post("/v2/models/rounds/infer", "application/json", []byte(sized(l.tenMilliseconds())))
	g, end := storm(t, l.Service, load.Options{Conns: conns, Keepalive: true, Timeout: testkit.Limit, Request: long, Trace: true})
	answers(t, g, 2*conns)
	var idle time.Time // since when somebody has waited though a permit was free
	samples, waited := 0, 0
	for until := g.Progress().Answers + uint64(times(150, 3000)); g.Progress().Answers < until; samples++ {
		n := numbers(t, l.ops)
		free := n["preforkd_concurrency_in_use"] < n["preforkd_concurrency_limit"]
		if n["preforkd_queue_depth"] > 0 {
			waited++
		}
		switch {
		case !free || n["preforkd_queue_depth"] == 0:
			idle = time.Time{}
		case idle.IsZero():
			idle = time.Now()
		case time.Since(idle) > inhaled:
			t.Fatalf("requests wait while a permit is free, for %v: %v", time.Since(idle), n)
		}
	}
	report := end()
	untouched(t, report, conns)
	if waited < samples/4 {
		t.Errorf("somebody waited in %d of %d samples", waited, samples)
	}
	t.Logf("at most %d others came later and were answered before", overtaken(report.Trace))
	if len(report.Workers) != 2 || slices.ContainsFunc(report.Workers, func(w load.WorkerReport) bool { return w.Answers < report.Answers/4 }) {
		t.Errorf("%+v", report.Workers)
	}
}

// overtaken returns by how many others, who asked later and were answered before, a request was
// overtaken at most.
func overtaken(trace []load.Point) (worst int) {
	for i, p := range trace {
		n := 0
		for j := i - 1; j >= 0 && trace[j].At > p.At-p.Took; j-- {
			if trace[j].At-trace[j].Took > p.At-p.Took {
				n++
			}
		}
		worst = max(worst, n)
	}
	return worst
}

// tenMilliseconds returns how many rounds take a worker about as long, by its own account.
func (l *line) tenMilliseconds() int {
	l.t.Helper()
	for n := 100; ; n *= 2 {
		before := numbers(l.t, l.ops)
		conn := l.send(load.Post("/v2/models/rounds/infer", "application/json", []byte(sized(n))))
		l.allAnswered([]net.Conn{conn})
		conn.Close() // so that it does not die with a worker, unseen
		if after := numbers(l.t, l.ops); after["preforkd_engine_seconds_total"]-before["preforkd_engine_seconds_total"] > 0.01 {
			return n
		}
	}
}

// TestKillsWithAQueue kills workers again and again under clients that nearly always wait: a request is
// lost only with the worker that has its connection in hand.
func TestKillsWithAQueue(t *testing.T) {
	const conns = 32
	l := hall(t, "", "http.worker_header=true")
	request := load.Post("/v2/models/rounds/infer", "application/json", []byte(sized(l.tenMilliseconds())))
	g, end := storm(t, l.Service, load.Options{Conns: conns, Keepalive: true, KeepFailures: everyFailure, Timeout: testkit.Limit, Request: request})
	toll := newToll(t, strings.TrimPrefix(l.URL, "http://"))
	for i := range times(6, 200) {
		answers(t, g, conns)
		toll.strike(l.Workers()[i%2])
		l.whole()
	}
	toll.noticed(end(), conns)
}
