package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// recycled returns how often the service replaced a worker for reason.
func recycled(t *testing.T, socket, reason string) (n int) {
	t.Helper()
	out, code := command(t, socket, "events")
	if code != 0 {
		t.Fatalf("events: %d, %s", code, out)
	}
	return strings.Count(out, "done: "+reason)
}

// awaitRecycled waits until that has happened n times.
func awaitRecycled(t *testing.T, socket, reason string, n int) {
	t.Helper()
	if err := testkit.Await(func() bool { return recycled(t, socket, reason) >= n }); err != nil {
		t.Errorf("%d recycled for %s, not %d", recycled(t, socket, reason), reason, n)
	}
}

// TestRecycleByRequests: workers come and go all the time under busy keep-alive clients, who
// notice nothing.
func TestRecycleByRequests(t *testing.T) {
	const conns = 64
	s, socket := reloadable(t, testkit.Options{Workers: 3, Set: []string{"recycle.requests=200"}})
	_, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	awaitRecycled(t, socket, "requests", times(8, 100))
	if got := len(status1(t, socket).Pools[0].Slots); got < 3 {
		t.Errorf("%d slots", got)
	}
	untouched(t, end(), conns)
}

// TestRecycleByAge needs no requests.
func TestRecycleByAge(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Set: []string{"recycle.age=1ms"}})
	first := fmt.Sprint(s.Workers())
	awaitRecycled(t, socket, "age", 3)
	slots := status1(t, socket).Pools[0].Slots
	if !strings.Contains(fmt.Sprint(slots), "age") || fmt.Sprint(s.Workers()) == first {
		t.Errorf("%+v", slots)
	}
}

// outgrowing is a service whose workers grow, by large requests, beyond a limit of memory that
// lies a quarter above what a new one needs.
func outgrowing(t *testing.T) (socket string, end func() *load.Report) {
	t.Helper()
	s, socket := reloadable(t, testkit.Options{})
	var fresh int64
	for _, sl := range status1(t, socket).Pools[0].Slots {
		fresh = max(fresh, sl.PSS)
	}
	s.Signal(syscall.SIGTERM)
	s.Wait()
	s, socket = reloadable(t, testkit.Options{Set: []string{fmt.Sprintf("recycle.memory=%d", fresh*5/4)}})
	_, end = storm(t, s, load.Options{
		Conns: 4, Keepalive: true, Timeout: testkit.Limit,
		Request: load.Post("/v2/models/digits/infer", "application/json", slowBody(t, 20000)),
	})
	return socket, end
}

// TestRecycleByMemory: workers that have grown are replaced, and no client notices.
func TestRecycleByMemory(t *testing.T) {
	socket, end := outgrowing(t)
	awaitRecycled(t, socket, "memory", 1)
	untouched(t, end(), 4)
}

// TestRecycleBelowOneWorker: the limit lies below what a worker needs that has done nothing. The
// first replacement shows that none would help: there is no other, and the operator is told
// both numbers.
func TestRecycleBelowOneWorker(t *testing.T) {
	_, socket := reloadable(t, testkit.Options{Set: []string{"recycle.memory=1MiB"}})
	var pool admin.Pool
	if err := testkit.Await(func() bool { pool = status1(t, socket).Pools[0]; return pool.Notice != "" }); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(pool.Notice, "recycle.memory is 1.0 MiB, and a new worker has ") {
		t.Error(pool.Notice)
	}
	if n := recycled(t, socket, "memory"); n != 1 {
		t.Errorf("%d were recycled", n)
	}
}

// TestRestart replaces one worker, and all of them, under busy keep-alive clients.
func TestRestart(t *testing.T) {
	const conns = 64
	s, socket := reloadable(t, testkit.Options{Workers: 3})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	pids := func() (p [3]int) {
		for _, sl := range status1(t, socket).Pools[0].Slots {
			p[sl.Index] = sl.PID
		}
		return p
	}
	for range times(3, 20) {
		answers(t, g, 200)
		before := pids()
		if out, code := command(t, socket, "restart", "1"); code != 0 || out != "restarted 1 worker of pool main\n" {
			t.Fatalf("%d: %s", code, out)
		}
		after := pids()
		if after[0] != before[0] || after[1] == before[1] || after[2] != before[2] {
			t.Errorf("%v -> %v", before, after)
		}
		if out, code := command(t, socket, "restart", "--all"); code != 0 || out != "restarted 3 of 3 workers of pool main\n" {
			t.Fatalf("%d: %s", code, out)
		}
		for i, pid := range pids() {
			if pid == after[i] {
				t.Errorf("slot %d still has pid %d", i, pid)
			}
		}
	}
	untouched(t, end(), conns)
	sl := status1(t, socket).Pools[0].Slots[1]
	if sl.Recycled != "asked" || sl.LastExit != "exit status 0" || sl.Restarts < 2 {
		t.Errorf("%+v", sl)
	}
}

// TestRestartRefuses what there is not.
func TestRestartRefuses(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{})
	before := fmt.Sprint(s.Workers())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"restart", "2"}, "restart: pool main has no slot 2\n  try: it has 2 workers, from slot 0 on"},
		{[]string{"restart", "0", "--pool", "x"}, `there is no pool "x"`},
		{[]string{"restart"}, "restart needs one slot, or --all"},
		{[]string{"restart", "1", "--all"}, "restart needs one slot, or --all"},
		{[]string{"restart", "-1"}, `slot: "-1" is no slot`},
		{[]string{"restart", "one"}, `slot: "one" is no slot`},
	} {
		if out, code := command(t, socket, c.args...); code != 64 || !strings.Contains(out, c.want) {
			t.Errorf("%v: %d, %s", c.args, code, out)
		}
	}
	if got := fmt.Sprint(s.Workers()); got != before {
		t.Errorf("workers were %s and are %s", before, got)
	}
}

// gatedWorker returns a worker that, between a call of shut and one of what that returns,
// waits before it starts.
func gatedWorker(t *testing.T) (command string, shut func() (open func())) {
	t.Helper()
	gate := filepath.Join(t.TempDir(), "gate")
	worker := filepath.Join(testkit.Programs(t), "preforkd-worker")
	command = program(t, "#!/bin/sh\nif [ -e "+gate+" ]; then read line < "+gate+"; fi\nexec "+worker+"\n")
	return command, func() func() {
		if err := syscall.Mkfifo(gate, 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			f, err := os.OpenFile(gate, os.O_RDWR, 0) // does not wait for a reader
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := os.Remove(gate); err != nil {
				t.Error(err)
			}
			for range 10 { // a line for each who may wait
				if _, err := f.WriteString("go\n"); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// replacementOf returns the pid of the worker that is to replace the one of slot 0.
func replacementOf(t *testing.T, s *testkit.Service, socket string) (pid int) {
	t.Helper()
	if err := testkit.Await(func() bool {
		for _, sl := range status1(t, socket).Pools[0].Slots {
			if sl.State == "starting" || sl.State == "loading" {
				pid = sl.PID
			}
		}
		return pid > 0
	}); err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestReplacementKilled while it starts: the old worker serves on, and the command says why.
func TestReplacementKilled(t *testing.T) {
	gated, shut := gatedWorker(t)
	s, socket := reloadable(t, testkit.Options{Set: []string{"worker.command=" + gated, "worker.kind=preforkd"}})
	defer shut()()
	before := fmt.Sprint(s.Workers())
	done := make(chan string, 1)
	go func() {
		out, code := command(t, socket, "restart", "0")
		done <- fmt.Sprint(code, " ", out)
	}()
	kill(t, replacementOf(t, s, socket), syscall.SIGKILL)
	if got := <-done; !strings.HasPrefix(got, "4 ") || !strings.Contains(got, "slot 0 of pool main keeps its worker: its replacement failed: ") {
		t.Error(got)
	}
	if got := fmt.Sprint(s.Workers()); got != before {
		t.Errorf("workers were %s and are %s", before, got)
	}
}

// TestReplacedWorkerDiesFirst: its slot gets one new worker, not two.
func TestReplacedWorkerDiesFirst(t *testing.T) {
	gated, shut := gatedWorker(t)
	s, socket := reloadable(t, testkit.Options{Set: []string{"worker.command=" + gated, "worker.kind=preforkd"}})
	open := shut()
	old := status1(t, socket).Pools[0].Slots[0].PID
	done := make(chan string, 1)
	go func() {
		out, code := command(t, socket, "restart", "0")
		done <- fmt.Sprint(code, " ", out)
	}()
	pid := replacementOf(t, s, socket)
	kill(t, old, syscall.SIGKILL)
	open()
	if got := <-done; got != "0 restarted 1 worker of pool main\n" {
		t.Error(got)
	}
	if got := status1(t, socket).Pools[0].Slots; len(got) != 2 || got[0].PID != pid {
		t.Errorf("%+v", got)
	}
}

// TestStoppedWorkerIsReplaced: it cannot drain, and is killed by the drain clock. Only
// connections that it holds are lost.
func TestStoppedWorkerIsReplaced(t *testing.T) {
	_, socket := reloadable(t, testkit.Options{Set: []string{"timeouts.drain=500ms"}})
	old := status1(t, socket).Pools[0].Slots[0].PID
	kill(t, old, syscall.SIGSTOP)
	if out, code := command(t, socket, "restart", "0"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	if got := status1(t, socket).Pools[0].Slots[0]; got.PID == old || got.State != "ready" || !strings.Contains(got.LastExit, "signal 9") {
		t.Errorf("%+v", got)
	}
}

// TestRestartAndReload wait for each other.
func TestRestartAndReload(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{})
	g, end := storm(t, s, load.Options{Conns: 16, Keepalive: true})
	answers(t, g, 100)
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Limit)
	defer cancel()
	done := make(chan string, 3)
	for _, args := range [][]string{{"restart", "--all"}, {"reload"}, {"restart", "--all"}} {
		go func() {
			out, code := command(t, socket, args...)
			done <- fmt.Sprintf("%d from %v: %s", code, args, out)
		}()
	}
	for range 3 {
		select {
		case got := <-done:
			if !strings.HasPrefix(got, "0 from ") {
				t.Error(got)
			}
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
	untouched(t, end(), 16)
	if st := status1(t, socket); st.Generation != 2 || len(st.Pools[0].Slots) != 2 {
		t.Errorf("%+v", st)
	}
}
