package e2e

import (
	"bufio"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// joining adds settings to the config.yaml of every model in dir.
func joining(t *testing.T, dir, settings string) {
	t.Helper()
	for _, name := range mixedModels {
		path := filepath.Join(dir, name, "config.yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, string(text)+settings)
	}
}

// near tells whether a and b are one answer: how many rows run at once may change the last
// digits.
func near(a, b mixedAnswer) bool {
	return slices.Equal(a.labels, b.labels) && slices.EqualFunc(a.probabilities, b.probabilities, func(p, q float32) bool {
		return math.Abs(float64(p-q)) < tolerance
	})
}

// TestBatchedAnswers: models that answer several requests in one run give each the answer
// that it gets alone, in every form, and there are fewer runs than requests.
func TestBatchedAnswers(t *testing.T) {
	set := digits.Load(t)
	models := copyModels(t)
	joining(t, models, "max_batch_size: 30\nmax_queue_delay: 500us\n")
	s := testkit.Start(t, testkit.Options{Workers: 1, Models: models})
	want := answersAlone(t, set, s.URL)
	before := map[string]modelStats{}
	for _, model := range mixedModels {
		before[model] = statsOf(t, s.URL, model)
	}
	const each = 50
	var clients sync.WaitGroup
	for id := range 16 {
		clients.Go(func() {
			c := &mixed{set, newV2Client(s.URL)}
			defer c.v2.http.CloseIdleConnections()
			random := rand.New(rand.NewPCG(2, uint64(id)))
			for i := range each * len(mixedModels) {
				model := mixedModels[i/each]
				block := random.IntN(len(want[model]))
				ask := c.askBinary
				if p := random.IntN(len(protocols) + 1); p < len(protocols) {
					ask = func(model string, block int) (mixedAnswer, error) { return c.askText(&protocols[p], model, block) }
				}
				if got, err := ask(model, block); err != nil || !near(got, want[model][block]) {
					t.Errorf("%s, block %d: %v, %v, alone %v", model, block, got, err, want[model][block])
					return
				}
			}
		})
	}
	clients.Wait()
	for _, model := range mixedModels {
		after := statsOf(t, s.URL, model)
		runs, rows := after.Executions-before[model].Executions, after.Inferences-before[model].Inferences
		t.Logf("%s: %d requests in %d runs", model, rows/mixedBlock, runs)
		if rows != 16*each*mixedBlock || runs >= 16*each {
			t.Errorf("%s: %d rows in %d runs", model, rows, runs)
		}
	}
}

// line is a worker that one long request keeps busy, and its operations listener.
type line struct {
	*site
	ops  string
	long net.Conn
}

func busyLine(t *testing.T, set ...string) *line {
	t.Helper()
	l := &line{site: clocked(t, testkit.Options{Workers: 1, Set: append(set, "ops.listen=127.0.0.1:0")}, "")}
	l.ops = operations(t, l.socket)
	l.long = l.send(hours)
	l.await("preforkd_concurrency_in_use", 1)
	return l
}

// send sends a request on a connection of its own.
func (l *line) send(request []byte) net.Conn {
	l.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(l.URL, "http://"))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(request); err != nil {
		l.t.Fatal(err)
	}
	return conn
}

// await waits until the metric has that value.
func (l *line) await(name string, want float64) {
	l.t.Helper()
	for end := time.Now().Add(testkit.Limit); ; time.Sleep(5 * time.Millisecond) {
		got := numbers(l.t, l.ops)[name]
		if got == want {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s is %v, want %v", name, got, want)
		}
	}
}

// answered reads the answer that comes on conn.
func (l *line) answered(conn net.Conn) (*http.Response, string) {
	l.t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(testkit.Limit)); err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	_, body := answered(l.t, resp)
	return resp, body
}

// TestClientsThatLeaveTheLine: of 100 that wait behind a long run and close their
// connections none is run, and then that run is given up, too, when its own client leaves.
func TestClientsThatLeaveTheLine(t *testing.T) {
	const clients = 100
	l := busyLine(t)
	calls := numbers(t, l.ops)["preforkd_engine_calls_total"] // of which the long one is none yet
	var waiting []net.Conn
	for range clients {
		waiting = append(waiting, l.send(brief))
	}
	l.await("preforkd_queue_depth", clients)
	for _, c := range waiting {
		c.Close()
	}
	l.await(`preforkd_requests_abandoned_total{state="waiting"}`, clients)
	l.await("preforkd_queue_depth", 0)
	l.long.Close()
	l.await(`preforkd_requests_abandoned_total{state="running"}`, 1)
	l.await("preforkd_concurrency_in_use", 0)
	l.await("preforkd_engine_calls_total", calls+1)
	if status, body := post(t, l.URL+"/v2/models/rounds/infer", sized(3)); status != 200 {
		t.Errorf("afterwards: %d %s", status, body)
	}
}

// TestBoundedQueue: while a worker is busy as many wait as may, and the next is refused at
// once and told when to come again; health is answered all the while.
func TestBoundedQueue(t *testing.T) {
	l := busyLine(t, "queue.max_requests=3")
	var waiting []net.Conn
	for i := range 3 {
		waiting = append(waiting, l.send(brief))
		l.await("preforkd_queue_depth", float64(i+1))
	}
	for range 5 {
		resp, body := l.answered(l.send(brief))
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "queue.max_requests") {
			t.Errorf("%s %v: %s", resp.Status, resp.Header, body)
		}
		if status, body := get(t, l.URL+"/readyz"); status != 200 {
			t.Errorf("health: %d %s", status, body)
		}
	}
	l.await(`preforkd_requests_refused_total{reason="full"}`, 5)
	l.long.Close()
	for i, c := range waiting {
		if resp, body := l.answered(c); resp.StatusCode != 200 {
			t.Errorf("%d: %s %s", i, resp.Status, body)
		}
	}
}
