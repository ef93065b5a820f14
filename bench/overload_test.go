package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"preforkd/internal/load"
)

func TestFatesAreParsed(t *testing.T) {
	want := map[string]float64{"refused late": 3, "expired running": 1000}
	got, err := parseFates([]byte(`# TYPE preforkd_requests_refused_total counter
preforkd_requests_refused_total{reason="late"} 3
preforkd_requests_expired_total{state="running"} 1e+03
preforkd_requests_refused_totals{reason="late"} 9
preforkd_requests_total{reason="late"} 9
`))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "preforkd_requests_total 3\n", "preforkd_requests_refused_total{reason=\"late\"} x\n", "preforkd_requests_refused_total{reason=\"late\" 3\n"} {
		if got, err := parseFates([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	if got := less(map[string]float64{"a": 3, "b": 2}, map[string]float64{"a": 1}); !maps.Equal(got, map[string]float64{"a": 2, "b": 2}) {
		t.Errorf("%v", got)
	}
}

// TestPerceptron: the same numbers, the same bytes, and as many weights as it says.
func TestPerceptron(t *testing.T) {
	for _, p := range []perceptron{{Width: 32, Layers: 3, Positions: 1}, {Width: 16, Layers: 2, Positions: 8}} {
		dir := t.TempDir()
		if err := p.write(dir, "max_batch_size: 4\n"); err != nil {
			t.Fatal(err)
		}
		model, err := os.ReadFile(filepath.Join(dir, "1", "model.onnx"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(model, p.encode()) {
			t.Errorf("%+v: written twice it is another", p)
		}
		moves := 0
		if p.Positions > 1 {
			moves = 4 * p.Positions * mlpInputs
		}
		if more := len(model) - p.bytes() - moves; more < 100 || more > 1500 {
			t.Errorf("%+v: %d bytes beside its weights", p, more)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "config.yaml")); err != nil || string(text) != "max_batch_size: 4\n" {
			t.Errorf("%q, %v", text, err)
		}
	}
}

func TestNumbersAreARequest(t *testing.T) {
	text := numbers(100_000)
	var r struct {
		Inputs []struct {
			Name  string
			Shape []int
			Data  []float64
		}
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(text) < 99_000 || len(text) > 101_000 || len(r.Inputs) != 1 {
		t.Fatalf("%d bytes, %d inputs", len(text), len(r.Inputs))
	}
	if in := r.Inputs[0]; in.Name != "pixels" || len(in.Shape) != 2 || in.Shape[1] != mlpInputs || in.Shape[0]*in.Shape[1] != len(in.Data) {
		t.Errorf("%s %v of %d numbers", in.Name, in.Shape, len(in.Data))
	}
}

func TestNumbersAreCompared(t *testing.T) {
	answer := func(head string, v float32) []byte {
		b := []byte(head)
		for range mlpOutputs {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		return b
	}
	want := answer("{}", 2)
	for name, c := range map[string]struct {
		got []byte
		ok  bool
	}{
		"the same":       {answer("{}", 2), true},
		"its last bits":  {answer("{}", 2.001), true},
		"another number": {answer("{}", 2.01), false},
		"no number":      {answer("{}", float32(math.NaN())), false},
		"longer":         {answer("{ }", 2), false},
		"nothing":        {nil, false},
	} {
		if err := sameNumbers(c.got, want); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := sameNumbers([]byte("{}"), []byte("{}")); err == nil {
		t.Error("answers without numbers are the same")
	}
}

// TestGoodput: the same run by the clock and by the CPU time that was there.
func TestGoodput(t *testing.T) {
	r := &goodRun{
		Name: "a", Capacity: [2]float64{90, 110}, Each: 10 * time.Millisecond, Good: 900, Measured: 10 * time.Second,
		Load: &visit{
			Server: 4 * time.Millisecond, Client: time.Millisecond, Ended: 2000, Window: 10 * time.Second, Idle: 2 * time.Second,
			Report: &load.Report{
				Statuses: map[int]uint64{http.StatusServiceUnavailable: 1100},
				Others:   map[int]load.Summary{http.StatusServiceUnavailable: {P99: 3 * time.Millisecond}, http.StatusGatewayTimeout: {P99: time.Second}},
			},
		},
	}
	for name, c := range map[string][2]float64{
		"capacity": {r.capacity(), 100}, "goodput": {r.goodput(), 90}, "share": {r.share(), 90},
		"by CPU": {r.byCPU(), 90}, // 8 s of the server and 2 s of nobody were enough for 1,000
		"spent":  {r.spent(), 8000. / 900}, "client": {r.client(), 0.2}, "refused": {r.refused(p99Of), 3},
	} {
		if math.Abs(c[0]-c[1]) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, c[0], c[1])
		}
	}
	g := &goodputs{Runs: []*goodRun{r, {Name: "b"}}}
	if v := g.refusals("a"); len(v) != 1 || v[0] != 3 {
		t.Errorf("%v", v)
	}
	r.Load.Report.Statuses = nil // then there is no p99 to judge
	if v := g.refusals("a"); len(v) != 0 {
		t.Errorf("%v", v)
	}
}

func TestStrayAnswers(t *testing.T) {
	for sent, want := range map[string]int{"": 0, "nothing": 0, "12 × 413": 0, "3 × 200, 12 × 413, 2 × 503, 1 unwritten": 5} {
		if got := (&looked{Sent: sent}).strays(); got != want {
			t.Errorf("%q: %d, want %d", sent, got, want)
		}
	}
}
