package e2e

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// TestProcessesStandStill: the kernel may take the processor from any process at any
// moment and for long. Whatever is replaced meanwhile, no connection is lost.
func TestProcessesStandStill(t *testing.T) {
	const conns = 64
	s, socket := reloadable(t, testkit.Options{Workers: 3, Set: []string{"timeouts.heartbeat=30s"}})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	var halts sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		halts.Go(func() { halt(t, s, done) })
	}
	for range times(8, 200) {
		args := [][]string{{"restart", "--all"}, {"reload"}, {"rollback"}, {"scale", strconv.Itoa(2 + rand.IntN(4))}}[rand.IntN(4)]
		if out, code := command(t, socket, args...); code != 0 && code != 69 { // 69: nothing to return to yet
			t.Errorf("%v: %d: %s", args, code, out)
		}
		answers(t, g, 100)
	}
	close(done)
	halts.Wait()
	untouched(t, end(), conns)
}

// halt stops processes of s, one after the other, each for up to a tenth of a second.
func halt(t *testing.T, s *testkit.Service, done <-chan struct{}) {
	for {
		all := append(testkit.Children(t, s.PID), s.PID)
		pid := all[rand.IntN(len(all))]
		if syscall.Kill(pid, syscall.SIGSTOP) == nil {
			time.Sleep(rand.N(100 * time.Millisecond)) // how long it stands still is what is tested
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		select {
		case <-done:
			return
		case <-time.After(rand.N(20 * time.Millisecond)):
		}
	}
}
