package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// visitor is a client with one connection that waits between its requests.
type visitor struct {
	conn net.Conn
	read *bufio.Reader
	last string // the worker that answered
}

// ask sends a request and returns what is wrong with the answer.
func (v *visitor) ask(request []byte) error {
	if _, err := v.conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(v.read, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || resp.Close) {
		err = fmt.Errorf("status %d, close %v: %s", resp.StatusCode, resp.Close, text)
	}
	v.last = resp.Header.Get("X-Preforkd-Worker")
	return err
}

// pid returns the process that answered last.
func (v *visitor) pid() int { return pidOf(v.last) }

// visit connects n visitors, each of which has been answered.
func visit(t *testing.T, n int, network, address string) []*visitor {
	t.Helper()
	all := make([]*visitor, n)
	for i := range all {
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		all[i] = &visitor{conn: c, read: bufio.NewReader(c)}
	}
	if n := asked(t, all); n > 0 {
		t.Fatalf("%d of the first requests failed", n)
	}
	return all
}

// asked has all visitors ask and returns how many were not answered.
func asked(t *testing.T, all []*visitor) (failed int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	const atOnce = 32
	for w := range atOnce {
		wg.Go(func() {
			for i := w; i < len(all); i += atOnce {
				was := all[i].last
				if err := all[i].ask(sample); err != nil {
					mu.Lock()
					if failed++; failed < 5 {
						t.Errorf("connection %d, last answered by %s: %v", i, was, err)
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// moved demands that workers of the present alone have answered last.
func moved(t *testing.T, f *site, all []*visitor) {
	t.Helper()
	now := map[int]bool{}
	for _, pid := range f.Workers() {
		now[pid] = true
	}
	for i, v := range all {
		if !now[v.pid()] {
			t.Fatalf("connection %d was answered by %s, which should have gone", i, v.last)
		}
	}
}

// TestIdleConnectionsMove reloads under many connections that wait, over TCP and over a
// Unix socket: every one of them is answered afterwards by a new worker.
func TestIdleConnectionsMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := begin(t, testkit.Options{Listen: []string{"127.0.0.1:0", "unix:" + path}}, quick)
	n := times(200, 1000)
	tcp := visit(t, n, "tcp", strings.TrimPrefix(f.URL, "http://"))
	unix := visit(t, n, "unix", path)
	for range times(3, 40) {
		for range 2 { // some connections move twice between two requests
			f.reload().end(0)
		}
		if failed := asked(t, tcp) + asked(t, unix); failed > 0 {
			t.Fatalf("%d of %d connections failed", failed, 2*n)
		}
		moved(t, f, tcp)
		moved(t, f, unix)
	}
}

// TestUnixSocketNobodyNotices reloads under busy clients of a Unix socket.
func TestUnixSocketNobodyNotices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := begin(t, testkit.Options{Listen: []string{"unix:" + path}}, quick)
	f.URL = "unix:" + path
	g, end := f.load(load.Options{Conns: clients, Think: think})
	for range times(3, 20) {
		f.reload().end(0)
		answers(t, g, 4*clients)
	}
	f.noticed(end(), clients)
}

// TestPoolScales changes the number of workers back and forth under load.
func TestPoolScales(t *testing.T) {
	size := func(n int) string { return fmt.Sprintf("workers: %d\nlisten: [\"127.0.0.1:0\"]\n%s", n, quick) }
	f := begin(t, testkit.Options{Bare: true}, size(4))
	g, end := f.load(load.Options{Conns: clients, Think: think})
	for range times(3, 10) {
		for _, n := range []int{2, 4} {
			f.configure(size(n))
			f.reload().end(0, fmt.Sprintf("-> %d", n))
			if got := len(f.Workers()); got != n {
				t.Errorf("%d workers, want %d", got, n)
			}
			answers(t, g, 4*clients)
		}
	}
	f.noticed(end(), clients)
}

// TestDescriptorLimitInTaker gives every process so few descriptors that one new worker
// cannot take all connections: what it has no room for goes to the other.
func TestDescriptorLimitInTaker(t *testing.T) {
	const limit, waiting = 128, 150 // two workers hold them, one cannot
	f := &site{t: t, last: 1, socket: filepath.Join(t.TempDir(), "admin.sock"), models: filepath.Join(testkit.Root(t), "models")}
	o := testkit.Options{
		Admin: f.socket, Models: f.models, Config: quick,
		Set: []string{"http.worker_header=true"},
	}
	cmd := o.Command(t)
	inner := append([]string{cmd.Path}, cmd.Args[1:]...)
	cmd.Args = append([]string{"/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, limit), "sh"}, inner...)
	cmd.Path = "/bin/sh"
	f.Service = testkit.LaunchCommand(t, cmd)
	f.Await("READY=1")
	line := f.Line()
	_, rest, _ := strings.Cut(line, "http://")
	f.URL = "http://" + strings.Fields(rest)[0]
	all := visit(t, waiting, "tcp", strings.TrimPrefix(f.URL, "http://"))
	for range times(3, 20) {
		f.reload().end(0)
		if failed := asked(t, all); failed > 0 {
			t.Fatalf("%d of %d connections failed", failed, waiting)
		}
		moved(t, f, all)
		holders := map[string]int{}
		for _, v := range all {
			holders[v.last]++
		}
		if len(holders) != 2 {
			t.Errorf("one worker has them all: the limit was never reached: %v", holders)
		}
	}
}
