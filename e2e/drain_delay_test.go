package e2e

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// drains tells whether e says that the delay of a stop is over.
func drains(e admin.Event) bool { return e.Kind == "stop" && e.Text == "drains" }

// delayed tells whether e says that the delay of a stop begins.
func delayed(e admin.Event) bool {
	return e.Kind == "stop" && strings.HasPrefix(e.Text, "serves on for ")
}

// customers are clients that send one request after the other until one fails, some on
// connections that they keep as long as they may, others on a new one for each.
type customers struct {
	stopped  atomic.Bool  // the service has been told to stop
	after    atomic.Int64 // answers to requests that were sent since then
	kept     atomic.Int64 // those of them that did not close their connection
	bad      atomic.Int64 // answers with a status other than 200
	earliest atomic.Int64 // when the first request failed, in Unix ns; 0: none has
	ended    sync.WaitGroup
}

func attend(url string) *customers {
	c := &customers{}
	for i := range 6 {
		c.ended.Go(func() { // ends with the first failure
			transport := &http.Transport{DisableKeepAlives: i%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: testkit.Limit}
			for c.once(client, url) {
			}
		})
	}
	return c
}

func (c *customers) once(client *http.Client, url string) bool {
	late := c.stopped.Load()
	resp, err := client.Post(url, "application/json", strings.NewReader(body(sample)))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err != nil {
		c.earliest.CompareAndSwap(0, time.Now().UnixNano())
		return false
	}
	if resp.StatusCode != 200 {
		c.bad.Add(1)
	}
	if late {
		c.after.Add(1)
		if !resp.Close {
			c.kept.Add(1)
		}
	}
	return true
}

// served waits for so many answers to requests that were sent since the stop.
func (c *customers) served(t *testing.T, n int64) {
	t.Helper()
	goal := c.after.Load() + n
	if testkit.Await(func() bool { return c.after.Load() >= goal || c.earliest.Load() != 0 }) != nil || c.earliest.Load() != 0 {
		t.Errorf("%d answers of %d, a request failed: %v", c.after.Load(), goal, c.earliest.Load() != 0)
	}
}

// check demands that all was well until the service drained, and that it did not before until.
func (c *customers) check(t *testing.T, until time.Time) {
	t.Helper()
	c.ended.Wait()
	if c.bad.Load() > 0 || c.kept.Load() > 0 || c.after.Load() == 0 {
		t.Errorf("%d answers since the stop: %d bad, %d kept their connection", c.after.Load(), c.bad.Load(), c.kept.Load())
	}
	if first := time.Unix(0, c.earliest.Load()); first.Before(until) {
		t.Errorf("a request failed %v before the delay was over", until.Sub(first))
	}
}

// begins tells the service to stop and returns when all clients may know it.
func (c *customers) begins(f *site, tell func()) {
	n := f.Reports()
	tell()
	f.AwaitAfter(n, "STOPPING=1")
	c.stopped.Store(true)
}

// TestDrainDelay: a service that was told to stop serves everybody until the delay is over,
// sends them elsewhere with each answer, and ends in peace.
func TestDrainDelay(t *testing.T) {
	const delay = 1500 * time.Millisecond
	for _, how := range []string{"signal", "command"} {
		t.Run(how, func(t *testing.T) {
			f := begin(t, testkit.Options{Ops: "127.0.0.1:0"}, quick+"drain: {delay: "+delay.String()+"}\n")
			events := f.events()
			idle, asks := visit(t, 1, "tcp", strings.TrimPrefix(f.URL, "http://"))[0], visit(t, 1, "tcp", strings.TrimPrefix(f.URL, "http://"))[0]
			c := attend(f.URL + "/predict")
			told := time.Now()
			c.begins(f, func() {
				if how == "signal" {
					f.Signal(syscall.SIGTERM)
				} else {
					must(t, f.socket, []string{"stop"})
				}
			})
			events.await("the delay", delayed)
			f.Await("STATUS=stopping: serves on for " + delay.String() + " (drain.delay), then drains")
			asks.send(t, sample) // a connection that was open before
			if resp, err := http.ReadResponse(asks.read, nil); err != nil || resp.StatusCode != 200 || !resp.Close {
				t.Errorf("%+v, %v", resp, err)
			}
			c.served(t, 20)
			events.await("the drain", drains)
			if rest, err := io.ReadAll(idle.read); err != nil || len(rest) > 0 { // is closed without a word
				t.Errorf("idle: %q, %v", rest, err)
			}
			if status := f.Wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
			c.check(t, told.Add(delay))
		})
	}
}

// TestDrainDelayShows: who asks meanwhile learns how long the service serves on, and nothing
// can be begun.
func TestDrainDelayShows(t *testing.T) {
	f := begin(t, testkit.Options{Ops: "127.0.0.1:0"}, quick+"drain: {delay: 1h}\n")
	f.Signal(syscall.SIGTERM)
	f.Await("STOPPING=1")
	st := status1(t, f.socket)
	if left := time.Duration(st.DrainsIn); st.State != "stopping" || left > time.Hour || left < 59*time.Minute {
		t.Errorf("%s, %v left", st.State, left)
	}
	must(t, f.socket, []string{"status"}, "stopping: serves on for ", ", then drains")
	must(t, f.socket, []string{"events"}, "stop", "serves on for 1h0m0s (drain.delay), then drains")
	for _, args := range [][]string{{"reload"}, {"scale", "3"}, {"restart", "0"}, {"rollback"}, {"upgrade"}} {
		ends(t, f.socket, args, 69, "the service is stopping")
	}
	must(t, f.socket, []string{"stop"}) // once more changes nothing
	if st := status1(t, f.socket); st.State != "stopping" {
		t.Errorf("%s", st.State)
	}
	must(t, f.socket, []string{"stop", "--quick"})
	if status := f.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if text := f.LogText(); !strings.Contains(text, "mode=quick") {
		t.Errorf("not quick:\n%s", text)
	}
}

// TestDrainDelayCutShort by a second signal, as any stop is; the same one at once counts once.
func TestDrainDelayCutShort(t *testing.T) {
	for _, second := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		f := begin(t, testkit.Options{}, quick+"drain: {delay: 1h}\n")
		f.Signal(syscall.SIGTERM)
		f.Signal(syscall.SIGTERM)
		n := f.AwaitAfter(0, "STOPPING=1")
		first := time.Now()
		if second == syscall.SIGTERM {
			<-time.After(time.Until(first.Add(300 * time.Millisecond))) // one that comes sooner is the same
		}
		if status, _ := get(t, f.URL+"/livez"); status != 200 {
			t.Errorf("%v: it does not serve on: %d", second, status)
		}
		f.Signal(second)
		f.AwaitAfter(n, "STATUS=stopping")
		if status := f.Wait(); status != 0 {
			t.Errorf("%v: exit status %d", second, status)
		}
		if text := f.LogText(); !strings.Contains(text, "mode=immediate") {
			t.Errorf("%v: not immediate:\n%s", second, text)
		}
	}
}

// TestDrainDelayDuringAReload: the reload ends, and whoever serves by then serves on.
func TestDrainDelayDuringAReload(t *testing.T) {
	const delay = "drain: {delay: 1500ms}\n"
	for _, c := range []struct{ phase, reload, held string }{
		{"canary: 0", quick, "0"},
		{"bake: ", "reload: {bake: 1h}\n", "none"},
		{"trial: ", "reload: {bake: 1ms, trial: 1h}\n", "none"},
		{"rest: 1", "reload: {bake: 1ms, trial: 1ms}\n", "1"},
	} {
		t.Run(c.phase, func(t *testing.T) {
			f := begin(t, testkit.Options{}, quick+delay)
			k := attend(f.URL + "/predict")
			g := newGate(t)
			f.configure(c.reload + delay + gated(t, g, c.held))
			r := f.reload()
			r.await(c.phase)
			told := time.Now()
			k.begins(f, func() { f.Signal(syscall.SIGTERM) })
			r.end(69, "the service was stopped")
			k.served(t, 20)
			if status := f.Wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
			k.check(t, told.Add(1500*time.Millisecond))
		})
	}
}

// TestDrainDelayWithoutWorkers: nobody waits for the end of a delay in which nobody serves.
func TestDrainDelayWithoutWorkers(t *testing.T) {
	t.Run("starting", func(t *testing.T) {
		f, g := lay(t), newGate(t)
		s := testkit.Launch(t, testkit.Options{Admin: f.socket, Models: f.models, Config: "drain: {delay: 1h}\n" + gated(t, g, "*")})
		where(t, f.socket)
		s.Signal(syscall.SIGTERM)
		if status := s.Wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
	t.Run("crashes", func(t *testing.T) {
		f := begin(t, testkit.Options{}, quick+"drain: {delay: 1h}\n")
		pids := f.Workers()
		f.Signal(syscall.SIGTERM)
		f.Await("STOPPING=1")
		kill(t, pids[0], syscall.SIGKILL)
		testkit.Gone(t, pids[0])
		if st := status1(t, f.socket); st.State != "stopping" { // the other one serves
			t.Errorf("%s", st.State)
		}
		kill(t, pids[1], syscall.SIGKILL)
		if status := f.Wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
}

// TestDrainDelayOfOtherPrograms: they serve on, and are told to stop when it is over.
func TestDrainDelayOfOtherPrograms(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: "drain: {delay: 1h}\n" + serving(pythonServer(t), "fine")})
	s.Signal(syscall.SIGTERM)
	s.Await("STOPPING=1")
	for range 5 {
		answersFrom(t, s.URL)
	}
	must(t, socket, []string{"stop", "--quick"})
	if status := s.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestDrainDelayAfterATakeover: workers that a supervisor found, and has no channel to, know of
// it as well.
func TestDrainDelayAfterATakeover(t *testing.T) {
	f, p := healthy(t, quick+"drain: {delay: 1h}\n")
	pids := f.Workers()
	old := f.Supervisor()
	for _, pid := range pids { // so that they stay, whoever replaces them
		kill(t, pid, syscall.SIGSTOP)
	}
	n := f.Reports()
	kill(t, old, syscall.SIGKILL)
	testkit.Gone(t, old)
	f.AwaitAfter(n, "READY=1")
	f.Signal(syscall.SIGTERM)
	f.AwaitAfter(n, "STOPPING=1")
	for _, pid := range pids {
		kill(t, pid, syscall.SIGCONT)
	}
	for range 5 {
		if got := <-p.ask("", p.shared+"/readyz").answer; got != "503 close" {
			t.Error(got)
		}
	}
	f.Signal(syscall.SIGINT)
	f.Wait()
}
