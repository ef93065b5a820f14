package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"preforkd/internal/load"
)

// binaryText is an answer in binary form with this label.
func binaryText(label int64, probabilities ...float32) []byte {
	b := fmt.Appendf(nil, `{"outputs":[{"name":"label","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}},`+
		`{"name":"probabilities","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":%d}}]}`, 4*len(probabilities))
	b = binary.LittleEndian.AppendUint64(b, uint64(label))
	for _, p := range probabilities {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(p))
	}
	return b
}

func TestBinaryAnswersAreJudged(t *testing.T) {
	d := digit{label: 1, probabilities: []float64{0.25, 0.75}}
	good := binaryText(1, 0.25, 0.75)
	for name, c := range map[string]struct {
		answer []byte
		ok     bool
	}{
		"right":             {good, true},
		"another label":     {binaryText(0, 0.25, 0.75), false},
		"another number":    {binaryText(1, 0.26, 0.74), false},
		"fewer numbers":     {binaryText(1, 0.25), false},
		"cut off":           {good[:len(good)-1], false},
		"more than is said": {append(slices.Clone(good), 0), false},
		"outputs in JSON":   {[]byte(`{"outputs":[{"name":"label","datatype":"INT64","data":[1]}]}`), false},
		"no JSON":           {[]byte("<html>"), false},
	} {
		if err := d.right(c.answer, binaryAnswer); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBinaryQuestion: the header says how much of the body is JSON, and the rest is the
// pixels.
func TestBinaryQuestion(t *testing.T) {
	d := digit{pixels: "[2.5" + strings.Repeat(",0.0", 63) + "]"}
	request := inferBinary.request(&d)
	head, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	if want := fmt.Sprintf("\r\nInference-Header-Content-Length: %d", len(body)-256); !strings.Contains(string(head), want) {
		t.Errorf("%q lacks %q", head, want)
	}
	if v := math.Float32frombits(binary.LittleEndian.Uint32(body[len(body)-256:])); v != 2.5 || body[len(body)-257] != '}' {
		t.Errorf("the first pixel is %v, after %q", v, body[:len(body)-256])
	}
}

func TestClocks(t *testing.T) {
	const text = `{"model_stats":[{"name":"digits","version":"1","inference_stats":{"success":{"count":4,"ns":100000},"fail":{"count":1,"ns":9000},` +
		`"queue":{"count":4,"ns":40000},"compute_input":{"count":4,"ns":8000},"compute_infer":{"count":4,"ns":40000},"compute_output":{"count":4,"ns":4000}}}]}`
	c, err := parseClocks([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	// 2 µs lie between the parts: neither of them is the engine's or the wait's.
	if want := (clocks{4, 10, 2, 10, 1, 25}); *c != want || c.beyond() != 5 {
		t.Errorf("%+v, beyond %v", *c, c.beyond())
	}
	for _, bad := range []string{``, `{}`, `{"model_stats":[{}]}`, `{"model_stats":[{},{}]}`} {
		if c, err := parseClocks([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

func TestAccuracy(t *testing.T) {
	samples := []digit{{truth: 3}, {truth: 4}, {truth: 3}, {truth: 3}}
	a := accuracy{}
	if err := a.count(samples, func(*digit) ([]byte, error) { return binaryText(3), nil }); err != nil {
		t.Fatal(err)
	}
	if a.String() != "3 of 4, 75.0 %" {
		t.Error(a.String())
	}
	if err := a.count(samples, func(*digit) ([]byte, error) { return nil, nil }); err == nil {
		t.Error("an empty answer counts")
	}
}

// TestInferenceGoals: ratios are formed within a round, whatever the order of the peers.
func TestInferenceGoals(t *testing.T) {
	r := &inferred{served: served{Rounds: 2}, Models: map[string][]*engineCall{"digits": {{Calls: 1, CPU: 5000}, {Calls: 1, CPU: 6000}}}}
	add := func(peer string, round int, answers uint64, cpu time.Duration, c *clocks) {
		r.Visits = append(r.Visits, &visit{
			Peer: peer, Round: round, Server: cpu, Clocks: c, Report: &load.Report{Answers: answers, Elapsed: time.Second},
		})
	}
	add(binaryOurs, 0, 90, 19*time.Microsecond, &clocks{Total: 30, Queue: 10, Engine: 8})
	add(binaryBare, 0, 100, 10*time.Microsecond, nil)
	add(binaryBare, 1, 200, 10*time.Microsecond, nil)
	add(binaryOurs, 1, 190, 20*time.Microsecond, &clocks{Total: 30, Queue: 10, Engine: 6})
	r.Image = []allocated{{Name: "whole", Work: 250}, {Name: "whole", Work: 340}, {Name: "float32", Work: 400}}
	r.Allocated = []allocated{{Name: "engine", Allocs: 1}, {Name: "socket", Allocs: 0}}
	want := map[string][]string{
		"throughput of binary infer, × bare":                {"≥ 0.90 ×", "0.93 ×", "0.90–0.95", "PASS"},
		"server time of binary infer beyond the engine":     {"≤ 15 µs", "13 µs", "12–14", "PASS"},
		"server time of JSON infer beyond the engine":       {"≤ 40 µs", "", "", "not measured"},
		"server CPU of binary infer beyond the engine call": {"≤ 15 µs", "14 µs", "14–14", "PASS"},
		"server CPU of JSON infer beyond the engine call":   {"≤ 40 µs", "", "", "not measured"},
		"an image of whole numbers in JSON, parsed":         {"≥ 300 MB/CPU s", "295 MB/CPU s", "250–340", "MISS"},
		"an image of float32 numbers in JSON, parsed":       {"≥ 300 MB/CPU s", "400 MB/CPU s", "400–400", "PASS"},
		"socket": {"≤ 0 allocations", "0 allocations", "0–0", "PASS"},
	}
	got := r.goals()
	if len(got) != len(want) {
		t.Errorf("%d goals", len(got))
	}
	for _, g := range got {
		if row := g.row(); !slices.Equal(row[1:], want[g.Text]) {
			t.Errorf("%q, want %q", row, want[g.Text])
		}
	}
	if row := r.ratioTable().rows[1]; !slices.Equal(row, []string{"server CPU of binary infer", "1.95 ×", "1.90–2"}) {
		t.Errorf("%q", row)
	}
}

// TestPairs: those that are compared are neighbours in every round, either first in turn.
func TestPairs(t *testing.T) {
	for round, want := range [][]int{{0, 1, 2, 3, 4, 5}, {3, 2, 5, 4, 1, 0}, {4, 5, 0, 1, 2, 3}} {
		if got := inPairs(6, round); !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", round, got, want)
		}
	}
	for round := range 6 {
		if got := slices.Sorted(slices.Values(inPairs(3, round))); !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("of 3, round %d: %v", round, got)
		}
	}
}
