package sizing

import (
	"strings"
	"testing"
)

func TestChange(t *testing.T) {
	for _, c := range []struct {
		change  Change
		now, to int
	}{
		{Change{Workers: 4}, 2, 4},
		{Change{Workers: 1, Relative: true}, 2, 3},
		{Change{Workers: -1, Relative: true}, 1, 0},
		{Change{Workers: 0}, 3, 0},
	} {
		if got := c.change.Of(c.now); got != c.to {
			t.Errorf("%+v of %d: %d", c.change, c.now, got)
		}
	}
}

// TestSteps: the order counts at the ends of the range.
func TestSteps(t *testing.T) {
	for _, c := range []struct {
		now   int
		steps []int
		to    int
	}{
		{2, []int{1, 1, 1}, 5},
		{5, []int{-1, -1, -1}, 2},
		{1, []int{-1}, 1},
		{1, []int{-1, 1}, 2},
		{1, []int{1, -1}, 1},
		{MaxWorkers, []int{1, -1}, MaxWorkers - 1},
		{3, nil, 3},
	} {
		if got := Steps(c.now, c.steps); got != c.to {
			t.Errorf("%v from %d: %d, want %d", c.steps, c.now, got, c.to)
		}
	}
}

func TestRefuse(t *testing.T) {
	small := Input{Cores: 2, Available: gib, ModelBytes: 64 << 20} // 256 MiB each, 768 to be had
	for _, c := range []struct {
		name    string
		in      Input
		now, to int
		why     string
		memory  bool
	}{
		{"fits exactly", small, 2, 5, "", false},
		{"one too many", small, 2, 6, "4 workers more may need 1.0 GiB (256 MiB each), and 768 MiB is to be had (1.0 GiB available, a quarter stays free): 3 more fit", true},
		{"fewer always fit", Input{Available: 1}, 9, 8, "", false},
		{"less than one worker", Input{Available: 1 << 20}, 1, 2, "1 worker more may need 64 MiB", true},
		{"unknown memory", Input{}, 1, MaxWorkers, "", false},
		{"none", small, 2, 0, "0 is no size; a pool has from 1 to 1024 workers", false},
		{"negative", small, 2, -3, "-3 is no size", false},
		{"too many", Input{}, 2, MaxWorkers + 1, "1025 is no size", false},
	} {
		why, memory := Refuse(c.in, c.now, c.to)
		if !strings.Contains(why, c.why) || (why == "") != (c.why == "") || memory != c.memory {
			t.Errorf("%s: %q, %v", c.name, why, memory)
		}
	}
}

func TestRefuseModels(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		available uint64
		workers   int
		bytes     uint64
		want      string
	}{
		{0, 100, 100 * gib, ""}, // not known
		{8 * gib, 2, gib, ""},
		{8 * gib, 3, gib, "it may need 9.0 GiB in 3 workers, and 6.0 GiB is to be had (8.0 GiB available, a quarter stays free)"},
		{64 << 20, 1, 1, "it may need 64 MiB in 1 worker, and 48 MiB"}, // the process that tries them
		{1 << 40, 1, 0, ""},
	} {
		got := RefuseModels(Input{Available: test.available}, test.workers, test.bytes)
		if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%+v: %q", test, got)
		}
	}
}
