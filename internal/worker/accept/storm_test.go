package accept

import (
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func duration(s string) time.Duration {
	d, _ := time.ParseDuration(s)
	return d
}

// TestRollingReplacement: processes replace each other under busy clients, two serving
// at any time. No request fails, no connection closes, nobody dials twice.
func TestRollingReplacement(t *testing.T) {
	for _, run := range []struct {
		network string
		times   int
	}{{"tcp", 20}, {"unix", 6}} {
		t.Run(run.network, func(t *testing.T) {
			s := newSite(t, run.network)
			serving := []*child{s.spawn(t, "worker", true, ""), s.spawn(t, "worker", true, "")}
			clients := newCrowd(t, s.ln.Addr(), 64)
			moved, longest := 0, time.Duration(0)
			for range run.times {
				next := s.spawn(t, "worker", true, "")
				old := serving[0]
				start := time.Now()
				old.say("leave")
				left := old.await("left")
				longest = max(longest, time.Since(start))
				if moved += left[0]; left[1] != 0 {
					t.Errorf("kept %d", left[1])
				}
				old.wait()
				serving = append(serving[1:], next)
			}
			requests := clients.finish(t)
			open := 0
			for _, c := range serving {
				c.say("counts")
				n := c.await("counts")
				if open += n[0]; n[4] != 0 {
					t.Errorf("%d connections lost or dropped", n[4])
				}
			}
			if open != 64 {
				t.Errorf("%d of 64 connections are left", open)
			}
			t.Logf("%d requests, %d handoffs, longest leave %v", requests, moved, longest)
		})
	}
}

// TestStormInOneProcess is the same without the time that processes take, so that the
// race detector sees both sides.
func TestStormInOneProcess(t *testing.T) {
	s := newSite(t, "tcp")
	current := s.start(t, "first", Options{}, true)
	clients := newCrowd(t, s.ln.Addr(), 64)
	moved := 0
	for i := range 40 {
		next := s.start(t, "next", Options{}, true)
		if i%2 == 0 {
			moved += current.pool.Give(t.Context(), current.queue, 16)
		}
		n, kept := current.leave()
		if kept != 0 {
			t.Errorf("kept %d", kept)
		}
		moved += n
		current = next
	}
	requests := clients.finish(t)
	if n := current.pool.Open(); n != 64 {
		t.Errorf("%d of 64 connections are left", n)
	}
	t.Logf("%d requests, %d handoffs", requests, moved)
}

// killed checks that after a crash of dead no client lost its connection that dead did
// not own. A connection may change hands just before the worker can report it: slack.
func killed(t *testing.T, clients []*client, dead *child, slack int) (lost int) {
	t.Helper()
	strangers := 0
	for _, c := range clients {
		a, err := c.get("/echo/y")
		if err == nil && a.status == 200 {
			continue
		}
		lost++
		address := c.LocalAddr().String()
		if dead.gone[address] {
			t.Errorf("%s was lost after it had been given away: %v", address, err)
		}
		if !dead.own[address] {
			strangers++
		}
	}
	if strangers > slack {
		t.Errorf("%d connections were lost that the dead worker did not own", strangers)
	}
	return lost
}

func idleClients(t *testing.T, s *site, n int) []*client {
	t.Helper()
	var clients []*client
	for range n {
		c := connect(t, s.ln.Addr())
		c.must(t, "/echo/x")
		clients = append(clients, c)
	}
	return clients
}

func TestGiverDies(t *testing.T) {
	s := newSite(t, "tcp")
	giver := s.spawn(t, "reporter", true, "")
	clients := idleClients(t, s, 400)
	taker := s.spawn(t, "reporter", false, "")
	giver.say("leave")
	for range 20 {
		taker.await("own")
	}
	giver.kill()
	lost := killed(t, clients, giver, 0)
	taker.say("counts")
	n := taker.await("counts")
	if n[2] != 400-lost || n[4] != 0 {
		t.Errorf("taker: %v, lost with the giver: %d", n, lost)
	}
	t.Logf("%d of 400 died with the giver", lost)
}

func TestTakerDies(t *testing.T) {
	s := newSite(t, "tcp")
	giver := s.spawn(t, "reporter", true, "100ms")
	clients := idleClients(t, s, 400)
	taker, other := s.spawn(t, "reporter", false, ""), s.spawn(t, "worker", false, "")
	giver.say("leave")
	for range 20 {
		taker.await("own")
	}
	taker.kill()
	if left := giver.await("left"); left[0] != 400 || left[1] != 0 {
		t.Errorf("giver: %v", left)
	}
	lost := killed(t, clients, taker, 1) // one may be taken and not yet served
	other.say("counts")
	if n := other.await("counts"); n[2] != 400-lost || n[4] != 0 {
		t.Errorf("the other taker: %v, lost with the dead one: %d", n, lost)
	}
	t.Logf("%d of 400 died with the taker", lost)
}

// TestDescriptorLimitInTaker: what the taker has no room for is not lost: it waits, is
// taken back and served, and goes when there is room.
func TestDescriptorLimitInTaker(t *testing.T) {
	s := newSite(t, "tcp")
	giver := s.spawn(t, "worker", true, "100ms")
	clients := idleClients(t, s, 60)
	taker := s.spawn(t, "worker", false, "")
	taker.say("counts")
	taker.await("counts")
	fds, err := os.ReadDir("/proc/" + strconv.Itoa(taker.cmd.Process.Pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		err := unix.Prlimit(taker.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: 4096}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(len(fds) + 10)
	giver.say("leave")
	eventually(t, "the taker serves some", func() bool { // on a busy machine it may need several tries
		served := map[string]int{}
		for _, c := range clients {
			served[c.must(t, "/echo/y").worker]++
		}
		n := served[strconv.Itoa(taker.cmd.Process.Pid)]
		if n > 10 {
			t.Errorf("the taker with room for 10 served %d", n)
		}
		return n > 0
	})
	limit(4096)
	if left := giver.await("left"); left[0] != 60 || left[1] != 0 {
		t.Errorf("giver: %v", left)
	}
	for _, c := range clients {
		if a := c.must(t, "/echo/z"); a.worker != strconv.Itoa(taker.cmd.Process.Pid) {
			t.Errorf("%+v", a)
		}
	}
	taker.say("counts")
	if n := taker.await("counts"); n[0] != 60 || n[4] != 0 {
		t.Errorf("taker: %v", n)
	}
}
