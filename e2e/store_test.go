package e2e

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// stored starts a service whose service manager keeps descriptors.
func stored(t *testing.T, store *testkit.Store, o testkit.Options, address string) (*testkit.Service, string) {
	t.Helper()
	o.Store, o.Listen = store, []string{address}
	return reloadable(t, o)
}

// served returns how many requests the service has answered since it began to count.
func served(t *testing.T, socket string) (n float64) {
	t.Helper()
	for name, value := range numbers(t, operations(t, socket)) {
		if strings.HasPrefix(name, "preforkd_http_requests_total{") {
			n += value
		}
	}
	return n
}

// TestRestartOfTheService: it stops and starts again, and its clients wait: none is refused, no
// connection is closed, and no counter falls.
func TestRestartOfTheService(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			const conns = 32
			store, listen := testkit.NewStore(t), "127.0.0.1:0" // the port that the first run was given
			if network == "unix" {
				listen = "unix:" + filepath.Join(t.TempDir(), "http.sock")
			}
			o := testkit.Options{Ops: "127.0.0.1:0"}
			s, socket := stored(t, store, o, listen)
			address := listen
			if network == "tcp" {
				address = strings.TrimPrefix(s.URL, "http://")
			}
			g, end := stormAt(t, address, load.Options{Conns: conns, Keepalive: true, Think: time.Millisecond, Timeout: testkit.Limit})
			_, endFresh := stormAt(t, address, load.Options{Conns: 4, Think: 5 * time.Millisecond, Timeout: testkit.Limit})
			for range times(5, 50) {
				answers(t, g, 500)
				before := status1(t, socket)
				s.Signal(syscall.SIGTERM)
				if status := s.Wait(); status != 0 {
					t.Fatalf("exit status %d", status)
				}
				s, socket = stored(t, store, o, listen)
				answers(t, g, 100)
				if after := status1(t, socket); after.Generation != before.Generation+1 {
					t.Errorf("generation %d follows %d", after.Generation, before.Generation)
				}
			}
			report, fresh := end(), endFresh()
			untouched(t, report, conns)
			if fresh.Failures.Total() > 0 {
				t.Errorf("%v; %+v", fresh.Failures, fresh.First)
			}
			want := float64(report.Answers + report.Warmup.Answers + fresh.Answers + fresh.Warmup.Answers)
			if testkit.Await(func() bool { return served(t, socket) == want }) != nil {
				t.Errorf("%v requests counted, clients had %v answers", served(t, socket), want)
			}
		})
	}
}

// TestMainProcessKilledWithStore: the next start finds what the dead one had kept.
func TestMainProcessKilledWithStore(t *testing.T) {
	const conns = 16
	store := testkit.NewStore(t)
	s, socket := stored(t, store, testkit.Options{}, "127.0.0.1:0")
	address := strings.TrimPrefix(s.URL, "http://")
	g, end := stormAt(t, address, load.Options{Conns: conns, Keepalive: true, Think: time.Millisecond, Timeout: testkit.Limit})
	_, endFresh := stormAt(t, address, load.Options{Conns: 4, Think: 5 * time.Millisecond, Timeout: testkit.Limit})
	for range times(3, 20) {
		answers(t, g, 200)
		before := status1(t, socket)
		workers := s.Workers()
		kill(t, s.Main, syscall.SIGKILL)
		s.Wait()
		for _, pid := range append(workers, before.PID) {
			testkit.Gone(t, pid)
		}
		s, socket = stored(t, store, testkit.Options{}, "127.0.0.1:0")
		answers(t, g, 100)
		if after := status1(t, socket); after.Generation != before.Generation+1 {
			t.Errorf("generation %d follows %d", after.Generation, before.Generation)
		}
	}
	untouched(t, end(), conns) // its workers could finish: there is nobody here who kills them
	if r := endFresh(); r.Failures.Total() > 0 {
		t.Errorf("%v; %+v", r.Failures, r.First)
	}
}

// TestRestartOfTheServiceAsAnother: its next start is of a program with another layout of the
// scoreboard, after one whose configuration was refused. Nothing is lost.
func TestRestartOfTheServiceAsAnother(t *testing.T) {
	const conns = 16
	other := filepath.Join(anotherLayout(t), "preforkd")
	store := testkit.NewStore(t)
	o := testkit.Options{Ops: "127.0.0.1:0"}
	s, socket := stored(t, store, o, "127.0.0.1:0")
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true, Think: time.Millisecond, Timeout: testkit.Limit})
	for _, program := range []string{other, ""} {
		answers(t, g, 500)
		n := s.Reports()
		kill(t, s.Workers()[0], syscall.SIGKILL) // its requests are the only ones that may fail
		s.AwaitAfter(s.AwaitAfter(n, "STATUS=1 of 2 workers ready"), "STATUS=2 of 2 workers ready")
		before := numbers(t, operations(t, socket))
		s.Signal(syscall.SIGTERM)
		if status := s.Wait(); status != 0 {
			t.Fatalf("exit status %d", status)
		}
		bad := o
		bad.Store, bad.Program, bad.Set = store, program, []string{"predict.model=nobody"}
		failed := testkit.Launch(t, bad)
		if status := failed.Wait(); status != 78 {
			t.Fatalf("a model that is not there: exit status %d", status)
		}
		o.Program = program
		s, socket = stored(t, store, o, "127.0.0.1:0")
		answers(t, g, 500)
		after := numbers(t, operations(t, socket))
		for _, name := range []string{
			`preforkd_http_requests_total{code="2xx"}`, "preforkd_http_request_duration_seconds_count", `preforkd_worker_restarts_total{cause="crash"}`,
		} {
			if after[name] < before[name] || before[name] == 0 {
				t.Errorf("%s fell from %v to %v", name, before[name], after[name])
			}
		}
	}
	if r := end(); r.Failures.Total() > 2*conns || r.Dials > 3*conns {
		t.Errorf("%v, %d dials; %+v", r.Failures, r.Dials, r.First)
	}
}

// TestStoreHoldsWhatIsUsed: after reloads, changes of listeners, upgrades and restarts there is
// no more in it than at first, and what a start has no use for is gone.
func TestStoreHoldsWhatIsUsed(t *testing.T) {
	store := testkit.NewStore(t)
	dir := t.TempDir()
	one, two := "unix:"+filepath.Join(dir, "one"), "unix:"+filepath.Join(dir, "two")
	o := testkit.Options{Store: store, Bare: true, Config: "workers: 1\nlisten: [" + one + ", " + two + "]\n"}
	s, socket := reloadable(t, o)
	full := len(store.Names())
	look := func(what string, sockets int) {
		t.Helper()
		if testkit.Await(func() bool { return len(store.Names()) == full-2+sockets }) != nil {
			t.Errorf("%s: %d descriptors, and %d with two sockets: %v", what, len(store.Names()), full, store.Names())
		}
	}
	must(t, socket, []string{"reload"}, "serves")
	look("reload", 2)
	upgradeTo(t, s, socket, installation(t))
	look("upgrade", 2)
	kill(t, s.Supervisor(), syscall.SIGKILL)
	if testkit.Await(func() bool { return allReady(status1(t, socket)) && status1(t, socket).Generation == 4 }) != nil {
		t.Errorf("not taken over: %+v", status1(t, socket))
	}
	look("death of the supervisor", 2)
	restart := func(listen string) {
		t.Helper()
		s.Signal(syscall.SIGTERM)
		if status := s.Wait(); status != 0 {
			t.Fatalf("exit status %d", status)
		}
		o.Config = "workers: 1\nlisten: [" + listen + "]\n"
		s, socket = reloadable(t, o)
	}
	restart(one + ", " + two)
	look("restart", 2)
	restart(two)
	look("restart with one listener", 1)
	if _, err := os.Lstat(filepath.Join(dir, "one")); err == nil {
		t.Error("the socket that is no longer configured has a file")
	}
	if status, body := getUnix(t, filepath.Join(dir, "two"), "/readyz"); status != 200 {
		t.Errorf("%d: %s", status, body)
	}
	if err := os.Remove(filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	restart(one + ", " + two)
	look("restart after a socket's file was removed", 2)
	for _, name := range []string{"one", "two"} {
		if status, body := getUnix(t, filepath.Join(dir, name), "/readyz"); status != 200 {
			t.Errorf("%d: %s", status, body)
		}
	}
}

// getUnix is get over a unix socket.
func getUnix(t *testing.T, socket, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	return fetched(t, client, "http://localhost"+path)
}
