package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// limited starts a service within a limit, of programs without the race detector, which takes
// more than they do.
func limited(t *testing.T, limit int, set ...string) (f *site, cgroup string) {
	t.Helper()
	cgroup = memoryCgroup(t, limit)
	f = begin(t, testkit.Options{
		Wrap: within(t, cgroup), Program: filepath.Join(testkit.PlainPrograms(t), "preforkd"), Set: slices.Concat(quickReload, set),
	}, "log: {level: info}\n")
	return f, cgroup
}

// fill has a file in memory count for cgroup until so much of its limit is used, by a process
// that is none of the service's. It is gone after the test, or when empty is called.
func (f *site) fill(t *testing.T, cgroup string, part float64) (empty func()) {
	t.Helper()
	var m *admin.Memory
	if err := testkit.Await(func() bool { // a look that was taken when the workers were there
		m = status1(t, f.socket).Memory
		return m != nil && m.Limit < 4<<30 && m.Private > 0 && m.Used > uint64(m.Private)
	}); err != nil {
		t.Fatalf("%v: %+v", err, m)
	}
	file := fmt.Sprintf("/dev/shm/preforkd-test-%d", os.Getpid())
	empty = func() { _ = os.Remove(file) }
	t.Cleanup(empty)
	bytes := int64(part*float64(m.Limit)) - int64(m.Used)
	out, code := run(t, "sh", "-c", `echo $$ >"$0"/cgroup.procs && head -c "$1" /dev/zero >"$2"`, cgroup, fmt.Sprint(bytes), file)
	if code != 0 {
		t.Skipf("skipped: no memory can be filled here: %s", out)
	}
	return empty
}

// memoryIs waits until memory is that.
func (f *site) memoryIs(t *testing.T, level string) {
	t.Helper()
	if err := testkit.Await(func() bool { m := status1(t, f.socket).Memory; return m != nil && m.Level == level }); err != nil {
		t.Fatalf("%v: %+v", err, status1(t, f.socket).Memory)
	}
}

// TestSurgeStops: where memory is short, what adds workers is refused, or taken back with the
// numbers, and what serves goes on. That an operator asks for more than there is is refused in
// any case, and done if he insists.
func TestSurgeStops(t *testing.T) {
	f, cgroup := limited(t, 1200<<20, "reload.bake=1m") // it would be through before memory is looked at again
	ends(t, f.socket, []string{"scale", "64"}, 78, "62 workers more may need", "is to be had", "more fit", "--force")
	must(t, f.socket, []string{"scale", "3", "--force"}, "3 workers")
	must(t, f.socket, []string{"scale", "2"}, "2 workers")

	f.fill(t, cgroup, 0.955)
	f.memoryIs(t, "critical")
	before := fmt.Sprint(f.Workers())
	ends(t, f.socket, []string{"reload"}, 4, "memory ran short", " % used", "by /sys/fs/cgroup/")
	ends(t, f.socket, []string{"restart", "0"}, 75, "restart: memory is critical: ")
	ends(t, f.socket, []string{"scale", "+1"}, 75, "memory is critical: ", "--force")
	if p := status1(t, f.socket).Pools[0]; fmt.Sprint(f.Workers()) != before || !allReady(status1(t, f.socket)) {
		t.Errorf("%+v", p)
	}
	if err := testkit.Await(func() bool { m := status1(t, f.socket).Memory; return m != nil && m.Notice != "" }); err != nil {
		t.Error(err)
	}
	must(t, f.socket, []string{"status"}, "memory is critical: ", "nothing gives memory back: no worker has grown")
	must(t, f.socket, []string{"events"}, "memory is critical: ")
	if status, text := post(t, f.URL+"/predict/digits", body(sample)); status != 200 {
		t.Errorf("%d: %s", status, text)
	}
}

// TestLargestWorkerIsRecycled: a request makes one worker larger than it was for as long as it is
// under way. When memory is critical that worker is replaced, once, and no client notices.
func TestLargestWorkerIsRecycled(t *testing.T) {
	const conns = 8
	f, cgroup := limited(t, 1200<<20, "timeouts.request=10m", "http.max_body=128MiB")
	var grown admin.Slot
	fresh := map[int]int64{}
	for _, sl := range status1(t, f.socket).Pools[0].Slots {
		fresh[sl.Index] = sl.Private
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := strings.TrimSuffix(sized(4), "}") + strings.Repeat(" ", 96<<20)
	if _, err := fmt.Fprintf(conn, "POST /v2/models/square/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body); err != nil {
		t.Fatal(err)
	}
	if err := testkit.Await(func() bool {
		for _, sl := range status1(t, f.socket).Pools[0].Slots {
			if sl.Private > fresh[sl.Index]+40<<20 {
				grown = sl
			}
		}
		return grown.PID != 0
	}); err != nil {
		t.Fatalf("no worker has grown: %v: %+v", err, status1(t, f.socket).Pools[0].Slots)
	}
	_, end := storm(t, f.Service, load.Options{Conns: conns, Keepalive: true})
	f.fill(t, cgroup, 0.96)
	if err := testkit.Await(func() bool { return strings.Contains(f.LogText(), "recycling the largest worker: memory is critical") }); err != nil {
		t.Fatalf("%v: %+v\n%s", err, status1(t, f.socket).Memory, f.LogText())
	}
	if _, err := io.WriteString(conn, "}"); err != nil {
		t.Error(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the large request: %v, %v", resp, err)
	}
	awaitRecycled(t, f.socket, "pressure", 1)
	if err := testkit.Await(func() bool { return allReady(status1(t, f.socket)) }); err != nil {
		t.Error(err)
	}
	for _, sl := range status1(t, f.socket).Pools[0].Slots {
		if (sl.Index == grown.Index) != (sl.Recycled == "pressure") || sl.Index == grown.Index && sl.PID == grown.PID {
			t.Errorf("slot %d had grown: %+v", grown.Index, sl)
		}
	}
	untouched(t, end(), conns)
	if n := recycled(t, f.socket, "pressure"); n != 1 {
		t.Errorf("%d recycled\n%s", n, f.LogText())
	}
}

// TestGuardIsOff: it is said how short memory is, and nothing is done.
func TestGuardIsOff(t *testing.T) {
	f, cgroup := limited(t, 1200<<20, "memory.guard=off")
	empty := f.fill(t, cgroup, 0.955)
	f.memoryIs(t, "critical")
	must(t, f.socket, []string{"restart", "0"}, "restarted 1 worker")
	must(t, f.socket, []string{"scale", "3", "--force"}, "3 workers")
	empty()
	f.memoryIs(t, "calm")
}
