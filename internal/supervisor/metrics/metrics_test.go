package metrics

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"preforkd/internal/ipc/scoreboard"
)

func board(t *testing.T) *scoreboard.Board {
	t.Helper()
	b, fd, err := scoreboard.Create(8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(b.Close(), syscall.Close(fd)); err != nil {
			t.Error(err)
		}
	})
	return b
}

func claim(t *testing.T, b *scoreboard.Board) *scoreboard.Row {
	t.Helper()
	row, err := b.Claim(scoreboard.Holder{})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// full is a snapshot in which every metric has a value.
func full(context.Context) (Snapshot, error) {
	return Snapshot{
		Generation: 3, RolledBack: true, Strangers: 5, Reload: Reload{OK: false, At: time.Unix(1700000000, 5e8)},
		Pools:    []Pool{{Name: "main", Size: 2, States: map[string]int{"ready": 2, "draining": 1}}},
		Recycles: map[string]uint64{"age": 0, "requests": 7},
		Restarts: map[string]uint64{"crash": 4, "memory": 1},
		Models: []Model{
			{Name: "digits", Version: "3", Weighed: true, Private: 1 << 20, Shared: 64 << 20},
			{Name: "risky", Version: "1", Quarantined: true, Deaths: 3, Weighed: true, Private: 64 << 20, Lost: true},
		},
		Memory: &Memory{Limit: 512 << 20, Used: 100 << 20, Mapped: 64 << 20, Level: 1, Stalled: 1500 * time.Millisecond, StallKnown: true, MajorFaults: 7, Kills: 2},
	}, nil
}

// TestNamesAndHelp lints as promtool check metrics does.
func TestNamesAndHelp(t *testing.T) {
	problems, err := testutil.CollectAndLint(&collector{"1", board(t), full})
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestCountersOutliveWorkers: what a settled row has counted stays, its gauges do not.
func TestCountersOutliveWorkers(t *testing.T) {
	b := board(t)
	for i, pid := range []int{11, 12} {
		row := claim(t, b)
		row.SetPID(pid)
		row.Respond(200)
		row.Respond(404)
		row.Lost.Add(1)
		row.HandedOver.Add(2)
		row.EngineNs.Add(5e8)
		row.InFlight.Add(1)
		row.Connections.Set(3)
		row.Idle.Set(2)
		if i == 0 {
			row.Settle(pid, 0, scoreboard.ExitUnknown)
		}
	}
	want := `
# HELP preforkd_http_requests_total Requests that a worker answered, by class of the status.
# TYPE preforkd_http_requests_total counter
preforkd_http_requests_total{code="2xx"} 2
preforkd_http_requests_total{code="4xx"} 2
preforkd_http_requests_total{code="5xx"} 0
# HELP preforkd_http_requests_in_flight Requests that workers are answering.
# TYPE preforkd_http_requests_in_flight gauge
preforkd_http_requests_in_flight 1
# HELP preforkd_connections Clients' connections that workers hold: between two requests (idle) or not (active).
# TYPE preforkd_connections gauge
preforkd_connections{state="active"} 1
preforkd_connections{state="idle"} 2
# HELP preforkd_connections_handed_over_total Connections that a worker gave to another.
# TYPE preforkd_connections_handed_over_total counter
preforkd_connections_handed_over_total 4
# HELP preforkd_engine_seconds_total Time inside the inference engine.
# TYPE preforkd_engine_seconds_total counter
preforkd_engine_seconds_total 1
# HELP preforkd_worker_exits_total Worker processes that ended, however and why.
# TYPE preforkd_worker_exits_total counter
preforkd_worker_exits_total 1
# HELP preforkd_worker_recycles_total Workers replaced while they served, by reason: requests, age, memory (the settings recycle.*), pressure (memory was critical), or asked for.
# TYPE preforkd_worker_recycles_total counter
preforkd_worker_recycles_total{reason="age"} 0
preforkd_worker_recycles_total{reason="requests"} 7
# HELP preforkd_worker_restarts_total Workers started in place of one that ended, by why that one did. A reload's new workers are none.
# TYPE preforkd_worker_restarts_total counter
preforkd_worker_restarts_total{cause="crash"} 4
preforkd_worker_restarts_total{cause="memory"} 1
# HELP preforkd_notify_dropped_total Messages to the workers' notify socket that were dropped because their sender is no worker.
# TYPE preforkd_notify_dropped_total counter
preforkd_notify_dropped_total 5
# HELP preforkd_model_quarantined 1 while the model's requests are refused because it ended too many workers.
# TYPE preforkd_model_quarantined gauge
preforkd_model_quarantined{model="digits",version="3"} 0
preforkd_model_quarantined{model="risky",version="1"} 1
# HELP preforkd_model_worker_deaths_total Workers that ended in the middle of the model's requests, and by its doing.
# TYPE preforkd_model_worker_deaths_total counter
preforkd_model_worker_deaths_total{model="digits",version="3"} 0
preforkd_model_worker_deaths_total{model="risky",version="1"} 3
# HELP preforkd_last_reload_success 1 if the last reload was committed, 0 if it failed. Before the first one, 1: the start.
# TYPE preforkd_last_reload_success gauge
preforkd_last_reload_success 0
# HELP preforkd_last_reload_timestamp_seconds When the last reload ended, or the service started, as Unix time.
# TYPE preforkd_last_reload_timestamp_seconds gauge
preforkd_last_reload_timestamp_seconds 1.7000000005e+09
# HELP preforkd_rolled_back 1 while the service runs what an earlier generation had, after a rollback, and not what its configuration says.
# TYPE preforkd_rolled_back gauge
preforkd_rolled_back 1
`
	var names []string
	for line := range strings.Lines(want) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			names = append(names, strings.Fields(rest)[0])
		}
	}
	if err := testutil.CollectAndCompare(&collector{"1", b, full}, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

// TestHistogramSaysWhatWasCounted compares both kinds of buckets with the scoreboard's.
func TestHistogramSaysWhatWasCounted(t *testing.T) {
	b := board(t)
	row := claim(t, b)
	random := rand.New(rand.NewPCG(1, 2))
	durations := []time.Duration{0, 1, 953, 954, time.Second, 1 << 30, 64 * time.Second, 128 * time.Second, 129 * time.Second, time.Hour}
	for range 1000 {
		durations = append(durations, time.Duration(math.Exp(random.Float64()*30)))
	}
	for _, d := range durations {
		row.Latency.Observe(d)
	}
	d := b.Latencies()
	var m dto.Metric
	if err := (histogram{durationDesc, d}).Write(&m); err != nil {
		t.Fatal(err)
	}
	h := m.GetHistogram()
	if h.GetSampleCount() != uint64(len(durations)) || h.GetSchema() != 4 || h.GetZeroThreshold() != scoreboard.ZeroThreshold || h.GetZeroCount() != d.Buckets[0] {
		t.Errorf("%d observations, schema %d, %d up to %v", h.GetSampleCount(), h.GetSchema(), h.GetZeroCount(), h.GetZeroThreshold())
	}
	for _, bucket := range h.Bucket {
		n := uint64(0)
		for _, d := range durations {
			if d.Seconds() <= bucket.GetUpperBound() {
				n++
			}
		}
		if bucket.GetCumulativeCount() != n {
			t.Errorf("up to %v s: %d, counted %d", bucket.GetUpperBound(), bucket.GetCumulativeCount(), n)
		}
	}
	if first, last := h.Bucket[0].GetUpperBound(), h.Bucket[len(h.Bucket)-1].GetUpperBound(); first != 0x1p-13 || last != 64 {
		t.Errorf("classic buckets from %v to %v", first, last)
	}
	index, count, delta := int32(0), int64(0), 0
	got := map[int32]int64{}
	for _, span := range h.PositiveSpan {
		index += span.GetOffset()
		for range span.GetLength() {
			count += h.PositiveDelta[delta]
			got[index] = count
			delta++
			index++
		}
	}
	if delta != len(h.PositiveDelta) {
		t.Errorf("spans of %d buckets, %d deltas", delta, len(h.PositiveDelta))
	}
	for place := 1; place < scoreboard.Places; place++ {
		index := int32(place - 1 + scoreboard.FirstIndex)
		if got[index] != int64(d.Buckets[place]) {
			t.Errorf("bucket %d has %d, counted %d", index, got[index], d.Buckets[place])
		}
		delete(got, index)
	}
	if len(got) > 0 {
		t.Errorf("further buckets %v", got)
	}
}

// serve runs a server for the test and returns its base URL.
func serve(t *testing.T, o Options) string {
	t.Helper()
	socket, err := Bind("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(socket, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Address()
}

func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestFormats reads both as Prometheus does.
func TestFormats(t *testing.T) {
	b := board(t)
	claim(t, b).Latency.Observe(3 * time.Millisecond)
	url := serve(t, Options{Version: "1", Board: b, Ask: full})
	_, text := get(t, url+"/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(families["preforkd_http_request_duration_seconds"].GetMetric()[0].GetHistogram().GetBucket()); n != 21 {
		t.Errorf("%d classic buckets:\n%s", n, text)
	}
	for name := range families {
		if strings.HasPrefix(name, "process_network") {
			t.Errorf("%s is not the process's", name)
		}
	}
	if families["process_start_time_seconds"] == nil {
		t.Errorf("no process metrics:\n%s", text)
	}
	const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	resp, body := get(t, url+"/metrics", "Accept", protobuf)
	decoder := expfmt.NewDecoder(strings.NewReader(body), expfmt.ResponseFormat(resp.Header))
	found := false
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if f.GetName() == "preforkd_http_request_duration_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			found = len(h.GetPositiveDelta()) == 1 && h.GetSampleCount() == 1
		}
	}
	if !found {
		t.Errorf("%s has no native histogram", resp.Header.Get("Content-Type"))
	}
}

func TestHealth(t *testing.T) {
	var answer Health
	url := serve(t, Options{Board: board(t), Health: func(context.Context) Health { return answer }})
	for _, c := range []struct {
		Health
		live, ready int
	}{
		{Health{true, true, "2 of 2 workers ready"}, 200, 200},
		{Health{true, false, "0 of 2 workers ready"}, 200, 503},
		{Health{false, false, "the loop does not answer"}, 503, 503},
	} {
		answer = c.Health
		for path, want := range map[string]int{"/livez": c.live, "/healthz": c.live, "/readyz": c.ready} {
			resp, body := get(t, url+path)
			if resp.StatusCode != want || !strings.Contains(body, c.Reason) && !(want == 200 && c.live == 200 && body == "live\n") {
				t.Errorf("%+v: %s: %s: %s", c.Health, path, resp.Status, body)
			}
			head, err := http.Head(url + path)
			if err != nil {
				t.Fatal(err)
			}
			head.Body.Close()
			if head.StatusCode != want {
				t.Errorf("%+v: HEAD %s: %s", c.Health, path, head.Status)
			}
		}
	}
	if resp, _ := get(t, url+"/elsewhere"); resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
	if resp, body := get(t, url); resp.StatusCode != 200 || !strings.Contains(body, "/metrics") {
		t.Error(resp.Status, body)
	}
}

// TestLoopThatHangs: the scoreboard's metrics are there all the same.
func TestLoopThatHangs(t *testing.T) {
	url := serve(t, Options{Version: "1", Board: board(t), Ask: func(context.Context) (Snapshot, error) {
		return Snapshot{}, context.DeadlineExceeded
	}})
	resp, text := get(t, url+"/metrics")
	if resp.StatusCode != 200 || !strings.Contains(text, "preforkd_http_requests_total") || strings.Contains(text, "preforkd_generation ") {
		t.Errorf("%s:\n%s", resp.Status, text)
	}
}

var _ prometheus.Collector = (*collector)(nil)
