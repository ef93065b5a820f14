package sizing

import (
	"math/rand/v2"
	"strings"
	"testing"
)

const gib = 1 << 30

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name           string
		in             Input
		workers, procs int
		why            string
		warns          bool
	}{
		{"a core each", Input{Cores: 4, Available: 16 * gib}, 4, 2, "4 workers: one per usable core (4 usable cores, 16.0 GiB available, 64 MiB planned for each)", false},
		{"one core", Input{Cores: 1, Available: gib}, 1, 2, "1 worker: one per usable core (1 usable core, 1.0 GiB available, 64 MiB planned for each)", false},
		{"memory decides", Input{Cores: 8, Available: 4 * gib, ModelBytes: gib / 4}, 3, 3, "3 workers: as many as fit into memory", false},
		{"not even one fits", Input{Cores: 8, Available: gib, ModelBytes: 2 * gib}, 1, 8, "as many as fit into memory", true},
		{"as asked", Input{Cores: 2, Available: 16 * gib, Asked: 8}, 8, 2, "8 workers: as asked", false},
		{"asked for too many", Input{Cores: 2, Available: gib, Asked: 64}, 64, 2, "as asked", true},
		{"unknown memory", Input{Cores: 2}, 2, 2, "2 workers: one per usable core (2 usable cores)", false},
		{"a reload of what fills the memory", Input{Cores: 4, Available: gib / 4, Running: 256 << 20}, 4, 2, "4 workers: one per usable core", false},
		{"and of larger models", Input{Cores: 4, Available: gib / 4, Running: 256 << 20, ModelBytes: 20 << 20}, 2, 2, "2 workers: as many as fit into memory", false},
		{"few workers on many cores", Input{Cores: 16, Available: 16 * gib, Asked: 3}, 3, 6, "as asked", false},
	} {
		p := Decide(c.in)
		if p.Workers != c.workers || p.Procs != c.procs || !strings.Contains(p.Why, c.why) || (p.Warning != "") != c.warns {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

// TestSurgeIsWhatFitsBeside: what the running workers hold is not there for more of them.
func TestSurgeIsWhatFitsBeside(t *testing.T) {
	if p := Decide(Input{Cores: 4, Available: gib / 8, Running: 256 << 20}); p.Workers != 4 || p.Surge != 1 {
		t.Errorf("%+v", p)
	}
}

func TestShort(t *testing.T) {
	const worker = processBytes + 10*perModelBytes<<20
	for _, c := range []struct {
		name string
		in   Input
		what string
		try  string
	}{
		{"too little", Input{Available: 50 << 20, ModelBytes: 10 << 20, Limited: true}, "one worker is planned with 94 MiB, and the memory limit leaves 50 MiB", "by 45 MiB or more"},
		{"just enough", Input{Available: worker, ModelBytes: 10 << 20, Limited: true}, "", ""},
		{"asked for all the same", Input{Available: 50 << 20, ModelBytes: 10 << 20, Limited: true, Asked: 1}, "", ""},
		{"no limit: others may give memory back", Input{Available: 50 << 20, ModelBytes: 10 << 20}, "", ""},
	} {
		what, try := Short(c.in)
		if what != c.what || !strings.Contains(try, c.try) || (try == "") != (what == "") {
			t.Errorf("%s: %q, %q", c.name, what, try)
		}
	}
}

// TestAutoNeverExceedsMemory: more cores or memory never mean fewer workers, and auto
// never plans more than fits, but for the one worker that a service needs.
func TestAutoNeverExceedsMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 10000 {
		in := Input{Cores: 1 + r.IntN(128), Available: 1 + r.Uint64N(1<<40), ModelBytes: r.Uint64N(1 << 34)}
		p := Decide(in)
		each := processBytes + perModelBytes*in.ModelBytes
		if p.Workers < 1 || p.Procs < 2 || p.Workers > in.Cores || p.Workers > 1 && uint64(p.Workers)*each > in.Available {
			t.Fatalf("%+v: %+v", in, p)
		}
		more := in
		more.Cores++
		more.Available += gib
		if Decide(more).Workers < p.Workers {
			t.Fatalf("%+v has fewer workers than %+v", more, in)
		}
	}
}
