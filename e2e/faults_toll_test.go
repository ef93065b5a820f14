package e2e

import (
	"slices"
	"syscall"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// toll knows whom the deaths in a test may cost: the clients whose connection a process
// owned when it died. Nobody else may notice.
//
// Who owned it is not what X-Preforkd-Worker said last: a connection that has been handed
// over since, and not been answered yet, belongs to its taker. So a victim is frozen before
// it is killed, and its descriptors are looked at.
type toll struct {
	t       *testing.T
	address string         // where the clients connect
	owned   map[string]int // by a client's address: how many dead owned its connection
	maybe   map[string]int // the same, where it is not certain whether he still did
	dead    map[int]bool
}

func newToll(t *testing.T, address string) *toll {
	return &toll{t, address, map[string]int{}, map[string]int{}, map[int]bool{}}
}

// strike kills a process, which may have ended already, and returns how many connections
// certainly died with it. One that lives on was only looked at in the queue, or has been given
// away; or its giver, who has not come to close his copy, keeps it alive for a moment more.
func (d *toll) strike(pid int) (owned int) {
	d.t.Helper()
	return d.bury(pid, d.kill(pid), d.maybe)
}

// strikeGiver is strike for a process that takes nothing: what it had given away must live on.
func (d *toll) strikeGiver(pid int) (owned int) {
	d.t.Helper()
	return d.bury(pid, d.kill(pid), map[string]int{})
}

// kill kills a process and returns the connections that it held, for bury.
func (d *toll) kill(pid int) (held map[string]string) {
	d.t.Helper()
	if testkit.Freeze(d.t, pid) {
		held = testkit.Held(d.t, pid, d.address)
		kill(d.t, pid, syscall.SIGKILL)
	}
	return held
}

// bury waits for the end of a process that was killed. The connections that it held are its
// own, or go to others where the socket lives on.
func (d *toll) bury(pid int, held map[string]string, others map[string]int) (owned int) {
	d.t.Helper()
	testkit.Gone(d.t, pid)
	d.dead[pid] = true
	alive := testkit.Connected(d.t, d.address)
	for socket, client := range held {
		if alive[socket] {
			others[client]++
			continue
		}
		d.owned[client]++
		owned++
	}
	return owned
}

// freeze stops a process that the service will end, and returns how many connections it
// holds.
func (d *toll) freeze(pid int) (held int) {
	d.t.Helper()
	if !testkit.Freeze(d.t, pid) {
		d.t.Fatalf("process %d has ended", pid)
	}
	d.dead[pid] = true
	clients := testkit.Held(d.t, pid, d.address)
	for _, client := range clients {
		d.maybe[client]++
	}
	return len(clients)
}

// take tells whether one of the dead owned client's connection, which it has not been told
// before.
func (d *toll) take(client string) bool {
	for _, m := range []map[string]int{d.owned, d.maybe} {
		if m[client] > 0 {
			m[client]--
			return true
		}
	}
	return false
}

// noticed demands that exactly those clients noticed anything whose connection died with
// its owner, each once, and that nobody was refused. Statuses are what a test has provoked.
func (d *toll) noticed(r *load.Report, conns int, statuses ...int) {
	d.t.Helper()
	moved, provoked := 0, 0
	for _, f := range r.First {
		if f.Class == load.Status && slices.Contains(statuses, f.Status) {
			provoked++
			continue
		}
		if !d.dead[pidOf(f.Worker)] {
			moved++
		}
		lost := f.Class == load.Unwritten || f.Class == load.Unanswered || f.Class == load.Partial
		if !lost || !d.take(f.Local) {
			d.t.Errorf("a client noticed whose connection no dead process owned: %+v", f)
		}
	}
	for _, c := range r.Closed {
		if !d.dead[pidOf(c.Worker)] {
			moved++
		}
		if !d.take(c.Local) {
			d.t.Errorf("a connection was closed that no dead process owned: %+v", c)
		}
	}
	for client, n := range d.owned {
		if n > 0 {
			d.t.Errorf("%s should have noticed the death of its connection's owner", client)
		}
	}
	failed := int(r.Failures.Total() + r.Warmup.Failures.Total())
	if failed != len(r.First) || r.Closes.Idle != uint64(len(r.Closed)) {
		d.t.Errorf("%d failures, %d of them listed; %d closes, %d listed", failed, len(r.First), r.Closes.Idle, len(r.Closed))
	}
	lost := failed - provoked + len(r.Closed)
	d.t.Logf("%d deaths cost %d connections, %d of them not answered by their last owner yet", len(d.dead), lost, moved)
	if r.Dials != uint64(conns+lost) || r.Closes.Announced+r.Closes.Unasked > 0 {
		d.t.Errorf("failures %v, %d dials of %d clients, closes %+v", r.Failures, r.Dials, conns, r.Closes)
	}
}
