package e2e

import (
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// ofSquare is a request that takes n³ operations.
func ofSquare(n int) []byte {
	return load.Post("/v2/models/square/infer", "application/json", []byte(sized(n)))
}

// TestSlowStart reloads into a version that takes long to start: while it does, the old
// one answers, and nobody notices the change.
func TestSlowStart(t *testing.T) {
	f := begin(t, testkit.Options{}, quick)
	g, end := f.load(load.Options{Conns: clients, Think: think})
	for _, held := range []string{"0", "1"} { // the canary, the others
		wait := newGate(t)
		f.configure(quick + gated(t, wait, held))
		r := f.reload()
		r.await(map[string]string{"0": "canary: ", "1": "rest: 1"}[held])
		answers(t, g, uint64(times(25, 1000)*clients)) // longer than a start takes here
		wait.open()
		r.end(0)
		answers(t, g, 4*clients)
	}
	f.noticed(end(), clients)
}

// TestSlowRequestsOutliveTheReload begins long requests at every worker and reloads: they
// are answered, and their connections go on.
func TestSlowRequestsOutliveTheReload(t *testing.T) {
	f := begin(t, testkit.Options{}, quick+"timeouts: {request: 10m, drain: 10m}\n")
	address := strings.TrimPrefix(f.URL, "http://")
	slow := visit(t, 8, "tcp", address)
	g, end := f.load(load.Options{Conns: 8, Think: think})
	for range times(3, 10) {
		done := make(chan error, len(slow))
		running := g.Progress().Answers
		for _, v := range slow {
			go func() { done <- v.ask(ofSquare(1500)) }()
		}
		old := f.Workers()
		f.busy(old...)
		r := f.reload()
		for range slow {
			if err := <-done; err != nil {
				t.Errorf("a slow request: %v", err)
			}
		}
		r.end(0)
		if g.Progress().Answers == running {
			t.Error("nobody else was answered")
		}
		if failed := asked(t, slow); failed > 0 {
			t.Errorf("%d connections failed afterwards", failed)
		}
		moved(t, f, slow)
	}
	f.noticed(end(), 8)
}

// busy waits until one of these workers has a request in flight.
func (f *site) busy(pids ...int) {
	f.t.Helper()
	if testkit.Await(func() bool {
		for _, s := range status1(f.t, f.socket).Pools[0].Slots {
			for _, pid := range pids {
				if s.PID == pid && s.InFlight > 0 {
					return true
				}
			}
		}
		return false
	}) != nil {
		f.t.Fatalf("none of %v is busy", pids)
	}
}

// TestErrorsInTheTrial reloads into a version that passes its self-test and then fails to
// answer what clients ask: the trial finds it out, though an old worker dies meanwhile.
func TestErrorsInTheTrial(t *testing.T) {
	f := begin(t, testkit.Options{}, "log: {level: info}\n")
	f.square("1", modest(), 1)
	f.configure(quick)
	f.reload().end(0)
	g, end := f.load(load.Options{Conns: clients, Think: think, Request: ofSquare(8_000_000)}) // 256 TB: more than can be addressed
	victim := f.worker(f.generation(), 1)
	f.square("2", product(), 1)
	f.configure("reload: {bake: 1ms, trial: 3s, max_surge: 2}\n")
	r := f.reload()
	r.await("trial: ")
	await(t, g, "an error of the canary", func(p load.Progress) bool { return p.Failures[load.Status] > 0 })
	// The trial shall not end before there is something to judge. With the main process, as a
	// container is frozen: it would replace a supervisor that alone stands still.
	if !testkit.Freeze(t, f.Main) || !testkit.Freeze(t, f.PID) {
		t.Fatal("the supervisor has ended")
	}
	held := f.kill(victim)
	await(t, g, "errors of the canary", func(p load.Progress) bool { return p.Failures[load.Status] >= 150 })
	kill(t, f.PID, syscall.SIGCONT)
	kill(t, f.Main, syscall.SIGCONT)
	f.bury(victim, held, f.maybe)
	r.end(ipc.ExitRolledBack, "had a 5xx status", "failed its trial")
	f.whole()
	was := g.Progress()
	answers(t, g, 4*clients)
	report := end()
	if is := report.Failures[load.Status]; is != was.Failures[load.Status] {
		t.Errorf("%d errors, %d of them after the reload", is, is-was.Failures[load.Status])
	}
	f.noticed(report, clients, 500)
}
