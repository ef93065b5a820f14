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
		{"memory decides, and a reload's one more", Input{Cores: 8, Available: 4 * gib, ModelBytes: gib / 4}, 2, 4, "2 workers: as many as fit into memory", false},
		{"not even one fits", Input{Cores: 8, Available: gib, ModelBytes: 2 * gib}, 1, 8, "as many as fit into memory", true},
		{"as asked", Input{Cores: 2, Available: 16 * gib, Asked: 8}, 8, 2, "8 workers: as asked", false},
		{"asked for what leaves no room for a reload", Input{Cores: 2, Available: gib, Asked: 12}, 12, 2, "12 workers: as asked", true},
		{"asked for more than there is", Input{Cores: 2, Available: gib, Asked: 64}, 11, 2, "11 workers: as many of 64 as fit into memory", true},
		{"an estimate does not reduce", Input{Cores: 4, Available: 12 * gib, ModelBytes: 2 * gib, Asked: 4}, 4, 2, "4 workers: as asked", true},
		{"the weights alone do", Input{Cores: 8, Available: 16 * gib, ModelBytes: 2 * gib, Asked: 8}, 4, 2, "as many of 8 as fit", true},
		{"of a program that nobody knows", Input{Cores: 2, Available: gib, Asked: 64, Foreign: true}, 64, 2, "as asked", true},
		{"unknown memory", Input{Cores: 2}, 2, 2, "2 workers: one per usable core (2 usable cores)", false},
		{"a part of a core", Input{Cores: 0.5}, 1, 2, "1 worker: one per usable core (0.5 usable cores)", false},
		{"and a part", Input{Cores: 2.5}, 3, 2, "3 workers: one per usable core (2.5 usable cores)", false},
		{"measured", Input{Cores: 8, Available: 16 * gib, ModelBytes: 2 * gib, Private: 100 << 20, Shared: 2 * gib}, 8, 2, "8 workers: one per usable core (8 usable cores, 16.0 GiB available, 100 MiB planned for each beside 2.0 GiB shared)", false},
		{"one copy of the weights for all", Input{Cores: 8, Available: 16 * gib, SharedBytes: 2 * gib}, 8, 2, "8 workers: one per usable core (8 usable cores, 16.0 GiB available, 64 MiB planned for each beside 2.0 GiB shared)", false},
		{"and for as many as are asked for", Input{Cores: 8, Available: 16 * gib, SharedBytes: 2 * gib, Asked: 64}, 64, 2, "64 workers: as asked", false},
		{"a second copy during a reload", Input{Cores: 8, Available: 4 * gib, SharedBytes: gib + gib/4}, 7, 2, "7 workers: as many as fit into memory", false},
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
	const worker = ProcessBytes + 10*perModelBytes<<20
	for _, c := range []struct {
		name string
		in   Input
		what string
		try  string
	}{
		{"too little", Input{Available: 50 << 20, ModelBytes: 10 << 20, Limited: true}, "one worker is planned with 94 MiB (64 MiB, and 3 times the 10 MiB of its model files), and the memory limit leaves 50 MiB", "by 45 MiB or more"},
		{"just enough", Input{Available: worker, ModelBytes: 10 << 20, Limited: true}, "", ""},
		{"asked for all the same", Input{Available: 50 << 20, ModelBytes: 10 << 20, Limited: true, Asked: 1}, "", ""},
		{"measured", Input{Available: 50 << 20, Private: 80 << 20, Shared: 20 << 20, Limited: true}, "one worker is planned with 100 MiB, and the memory limit leaves 50 MiB", "by 51 MiB or more"},
		{"with prepared weights", Input{Available: 50 << 20, ModelBytes: 10 << 20, SharedBytes: 20 << 20, Limited: true}, "one worker is planned with 114 MiB (64 MiB, 3 times the 10 MiB of its model files, and 20 MiB of prepared weights), and the memory limit leaves 50 MiB", "by 65 MiB or more"},
		{"a machine that is too small", Input{Available: 50 << 20, Memory: 90 << 20, ModelBytes: 10 << 20}, "one worker is planned with 94 MiB (64 MiB, and 3 times the 10 MiB of its model files), and the machine has 90 MiB", "fewer or smaller models"},
		{"no limit: others may give memory back", Input{Available: 50 << 20, ModelBytes: 10 << 20}, "", ""},
	} {
		what, try := Short(c.in)
		if what != c.what || !strings.Contains(try, c.try) || (try == "") != (what == "") {
			t.Errorf("%s: %q, %q", c.name, what, try)
		}
	}
}

// random returns any input.
func random(r *rand.Rand) Input {
	in := Input{Cores: r.Float64() * 128, Available: 1 + r.Uint64N(1<<r.IntN(42)), ModelBytes: r.Uint64N(1 << r.IntN(36))}
	if r.IntN(2) == 0 {
		in.SharedBytes = r.Uint64N(1 << r.IntN(36))
	}
	if r.IntN(2) == 0 {
		in.Private, in.Shared = 1+r.Uint64N(1<<r.IntN(34)), r.Uint64N(1<<r.IntN(34))
	}
	return in
}

// TestAutoNeverExceedsMemory: auto never plans more than fits beside a reload, but for the one
// worker that a service needs; nor more than one worker a core and one for the part of one.
func TestAutoNeverExceedsMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		in := random(r)
		p := Decide(in)
		if p.Workers < 1 || p.Procs < 2 || float64(p.Workers) >= in.Cores+1 && p.Workers > 1 || p.Threads < 5 || p.Threads > 40 {
			t.Fatalf("%+v: %+v", in, p)
		}
		if n := in.Need(); p.Workers > 1 && n.Peak(p.Workers, 1) > Room(in.Available) || p.Memory != n.Of(p.Workers) {
			t.Fatalf("%+v: %+v", in, p)
		}
		if p.GoMemory < leastGoMemory || p.QueueBytes > p.GoMemory {
			t.Fatalf("%+v: %+v", in, p)
		}
		if p.Workers > 1 && p.GoMemory > leastGoMemory {
			models := in.Need().Private - min(in.Need().Private, ProcessBytes)
			if uint64(p.Workers)*(p.GoMemory+models) > Room(in.Available) {
				t.Fatalf("%+v: the heaps do not fit: %+v", in, p)
			}
		}
	}
}

// TestMoreIsNeverLess: more cores and memory never mean fewer workers, larger models never more.
func TestMoreIsNeverLess(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 20000 {
		in := random(r)
		p := Decide(in).Workers
		for what, change := range map[string]func(*Input){
			"cores":  func(i *Input) { i.Cores += r.Float64() * 3 },
			"memory": func(i *Input) { i.Available += r.Uint64N(1 << 34) },
			"both":   func(i *Input) { i.Cores++; i.Available += 1 << 30 },
		} {
			more := in
			if change(&more); Decide(more).Workers < p {
				t.Fatalf("more %s: %+v has fewer workers than %+v", what, more, in)
			}
		}
		larger := in
		larger.ModelBytes += r.Uint64N(1 << 30)
		larger.SharedBytes += r.Uint64N(1 << 30)
		if larger.Private > 0 {
			larger.Private += r.Uint64N(1 << 30)
			larger.Shared += r.Uint64N(1 << 30)
		}
		if Decide(larger).Workers > p {
			t.Fatalf("larger models: %+v has more workers than %+v", larger, in)
		}
	}
}

// TestAskedIsReduced only where the kernel would kill, and then to what auto would carry.
func TestAskedIsReduced(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20000 {
		in := random(r)
		in.Asked = 1 + r.IntN(64)
		p := Decide(in)
		n := in.Least()
		switch {
		case p.Workers > in.Asked || p.Workers < 1:
			t.Fatalf("%+v: %+v", in, p)
		case p.Workers > 1 && n.Of(p.Workers) > in.Available:
			t.Fatalf("%+v: more than there is: %+v", in, p)
		case p.Workers < in.Asked && (n.Of(in.Asked) <= in.Available || p.Warning == ""):
			t.Fatalf("%+v: reduced without need, or without a word: %+v", in, p)
		}
	}
}
