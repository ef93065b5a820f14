package sizing

import (
	"math/rand/v2"
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
		{"their weights are there already", Input{Cores: 2, Available: gib, SharedBytes: 512 << 20}, 2, 6, "", false},
		{"and not to be had for more", Input{Cores: 2, Available: gib, SharedBytes: 512 << 20}, 2, 7, "5 workers more may need 320 MiB (64 MiB each), and 768 MiB is to be had (1.0 GiB available, a quarter stays free): 4 more fit", true},
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
	for _, test := range []struct {
		available uint64
		workers   int
		models    Models
		want      string
	}{
		{0, 100, Models{Copied: 100 * gib}, ""}, // not known
		{8 * gib, 2, Models{Copied: gib}, ""},
		{8 * gib, 3, Models{Copied: gib}, "it may need 9.0 GiB in 3 workers, and 6.0 GiB is to be had (8.0 GiB available, a quarter stays free)"},
		{8 * gib, 64, Models{Shared: gib}, ""}, // what 64 workers share is there once
		{4 * gib, 1, Models{Shared: gib}, "it may need 4.0 GiB in 1 worker, which share its weights, and 3.0 GiB is to be had"},
		{8 * gib, 3, Models{Copied: gib / 2, Shared: gib}, "it may need 8.4 GiB in 3 workers, which share a part of its weights"},
		{64 << 20, 1, Models{Copied: 1}, "it may need 64 MiB in 1 worker, and 48 MiB"}, // the process that tries them
		{1 << 40, 1, Models{}, ""},
		{1 << 40, 1 << 10, Models{Copied: 1 << 63, Shared: 1 << 63}, "it may need"}, // no sum runs over
	} {
		got := RefuseModels(Input{Available: test.available}, test.workers, test.models)
		if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

// TestSharedModelsAreNeverWorse: the same files, shared, are refused for no number of workers
// beyond one for which they are not refused as copies.
func TestSharedModelsAreNeverWorse(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 20000 {
		in, bytes, workers := Input{Available: 1 + r.Uint64N(1<<r.IntN(42))}, r.Uint64N(1<<r.IntN(36)), 2+r.IntN(64)
		if RefuseModels(in, workers, Models{Copied: bytes}) == "" && RefuseModels(in, workers, Models{Shared: bytes}) != "" {
			t.Fatalf("%+v: %d bytes in %d workers", in, bytes, workers)
		}
	}
}
