package guard

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const gib = 1 << 30

// of returns a sample of 100 GiB in percent, i seconds after the first.
func of(i, used, mapped, stalled int) Sample {
	return Sample{Limit: 100 * gib, Used: uint64(used) * gib, Mapped: uint64(mapped) * gib, Stalled: time.Duration(stalled*i) * 10 * time.Millisecond, StallKnown: true}
}

// TestLevels: the same sample again and again, from calm on.
func TestLevels(t *testing.T) {
	for name, c := range map[string]struct {
		sample func(i int) Sample
		want   Level
	}{
		"empty":                        {func(i int) Sample { return of(i, 10, 10, 0) }, Calm},
		"nothing known":                {func(int) Sample { return Sample{Used: gib} }, Calm},
		"others wait, with room":       {func(i int) Sample { return of(i, 50, 20, 100) }, Calm},
		"a start reads its weights":    {func(i int) Sample { s := of(i, 50, 30, 0); s.MajorFaults = uint64(i) * 5000; return s }, Calm},
		"much is used":                 {func(i int) Sample { return of(i, 85, 0, 0) }, Tight},
		"full of mapped files":         {func(i int) Sample { return of(i, 20, 75, 0) }, Tight},
		"and nobody waits for them":    {func(i int) Sample { s := of(i, 20, 75, 0); s.MajorFaults = uint64(i) * 5000; return s }, Tight},
		"they are taken away and read": {func(i int) Sample { return of(i, 20, 75, 20) }, Critical},
		"no PSI: major faults": {func(i int) Sample {
			s := of(i, 20, 75, 0)
			s.StallKnown, s.MajorFaults = false, uint64(i)*100
			return s
		}, Critical},
		"no PSI, few faults":             {func(i int) Sample { s := of(i, 20, 75, 0); s.StallKnown, s.MajorFaults = false, uint64(i)*99; return s }, Tight},
		"the kernel is about to kill":    {func(i int) Sample { return of(i, 95, 0, 0) }, Critical},
		"more than there is":             {func(i int) Sample { return of(i, 300, 300, 100) }, Critical},
		"counts that fall":               {func(i int) Sample { s := of(1000-i, 20, 75, 100); s.MajorFaults = uint64(1000 - i); return s }, Tight},
		"counts beyond what time allows": {func(i int) Sample { s := of(i, 20, 75, 100000); return s }, Critical},
	} {
		var w Watch
		for i := range 60 {
			before := w.State().Level
			changed := w.Take(time.Duration(i)*time.Second, c.sample(i))
			if changed != (w.State().Level != before) || i < enterAfter-1 && changed {
				t.Errorf("%s: sample %d: %v, %+v", name, i, changed, w.State())
			}
		}
		if got := w.State().Level; got != c.want {
			t.Errorf("%s: %v, want %v (%v)", name, got, c.want, w.State())
		}
	}
}

// TestLevelsStay: what comes and goes around a mark changes nothing, and a level is left below
// the lower one only.
func TestLevelsStay(t *testing.T) {
	var w Watch
	at, counted := 0, time.Duration(0)
	feed := func(times, used, stalled int) (changes int) {
		for range times {
			counted += time.Duration(stalled) * 10 * time.Millisecond
			s := of(0, used, 0, 0)
			s.Stalled = counted
			if w.Take(time.Duration(at)*time.Second, s); w.State().Level != Calm {
				changes++
			}
			at++
		}
		return changes
	}
	for range 100 {
		if feed(enterAfter-1, 96, 0) > 0 || feed(1, 50, 0) > 0 {
			t.Fatal("two samples are a level")
		}
	}
	feed(enterAfter, 96, 0)
	for range 50 {
		feed(3, 91, 0) // below the mark to enter it, above that to leave it
		feed(leaveAfter-1, 50, 0)
		if w.State().Level != Critical {
			t.Fatal(w.State())
		}
	}
	feed(1, 91, 0)
	feed(leaveAfter, 82, 0)
	if w.State().Level != Tight {
		t.Error(w.State())
	}
	feed(leaveAfter, 10, 0)
	if w.State().Level != Calm {
		t.Error(w.State())
	}
}

// TestLevelsOfAnything: whatever samples say, no level is entered before three or left before
// ten that ask for it, and all numbers are numbers.
func TestLevelsOfAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var w Watch
		since := 0
		now := time.Duration(0)
		for i := range 300 {
			s := Sample{
				Limit: r.Uint64N(1 << r.IntN(64)), Used: r.Uint64N(1 << r.IntN(64)), Mapped: r.Uint64N(1 << r.IntN(64)),
				Stalled: time.Duration(r.Int64N(1 << r.IntN(62))), StallKnown: r.IntN(3) > 0, MajorFaults: r.Uint64N(1 << r.IntN(64)),
			}
			now += time.Duration(r.Int64N(int64(2 * time.Second)))
			before := w.State().Level
			changed := w.Take(now, s)
			st := w.State()
			since++
			switch {
			case changed && st.Level > before && since < enterAfter, changed && st.Level < before && since < leaveAfter:
				t.Fatalf("sample %d: %v after %d samples", i, st.Level, since)
			case st.Stall > 1 || st.Used < 0 || st.Full < st.Used || st.Faults < 0 || strings.Contains(st.String(), "NaN"):
				t.Fatalf("%+v", st)
			}
			if changed {
				since = 0
			}
		}
	}
}

// TestPace: whatever the need, no more than one worker a minute is recycled, six in the first
// hour, and two in every later one.
func TestPace(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var p Pace
		var acts []time.Duration
		now := time.Duration(0)
		for now < 12*time.Hour {
			now += time.Duration(1+r.IntN(90)) * time.Second // never calm for long
			if p.May(now) {
				p.Acted(now)
				acts = append(acts, now)
			}
		}
		for i := range acts {
			within := 0
			for _, a := range acts[i:] {
				if a < acts[i]+time.Hour {
					within++
				}
			}
			if i > 0 && acts[i]-acts[i-1] < firstWait || within > 6 || acts[i] > time.Hour && within > 2 {
				t.Fatalf("%d of %v", within, acts)
			}
		}
		if len(acts) < 20 {
			t.Fatalf("it gives up: %v", acts)
		}
	}
	var p Pace
	for _, at := range []time.Duration{0, 2 * time.Minute, 6 * time.Minute} {
		if !p.May(at) {
			t.Fatal(at)
		}
		p.Acted(at)
	}
	if p.May(6*time.Minute+30*time.Second) || !p.May(20*time.Minute) {
		t.Error("it does not forget after a time of calm")
	}
	p.Acted(20 * time.Minute)
	if p.Next() != 21*time.Minute {
		t.Error(p.Next())
	}
}

func TestVictim(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		all  []Candidate
		want int
		why  string
	}{
		"nobody":           {nil, -1, "no worker is ready"},
		"alone":            {[]Candidate{{900 * mib, 100 * mib, 0}}, -1, "none serves beside it"},
		"not known":        {[]Candidate{{0, 0, 1}, {5 * mib, 0, 1}}, -1, "not known"},
		"as they began":    {[]Candidate{{100 * mib, 100 * mib, 1}, {131 * mib, 100 * mib, 1}}, -1, "no worker has grown"},
		"a quarter of it":  {[]Candidate{{1240 * mib, 1000 * mib, 1}}, -1, "no worker has grown"},
		"the largest":      {[]Candidate{{400 * mib, 100 * mib, 2}, {500 * mib, 100 * mib, 2}, {300 * mib, 10 * mib, 2}}, 1, ""},
		"that has grown":   {[]Candidate{{900 * mib, 880 * mib, 1}, {200 * mib, 100 * mib, 1}}, 1, ""},
		"that can be lost": {[]Candidate{{900 * mib, 100 * mib, 0}, {200 * mib, 100 * mib, 1}}, 1, ""},
		"it has shrunk":    {[]Candidate{{10 * mib, 100 * mib, 1}}, -1, "no worker has grown"},
	} {
		got, why := Victim(c.all)
		if got != c.want || !strings.Contains(why, c.why) || (why == "") != (got >= 0) {
			t.Errorf("%s: %d, %q", name, got, why)
		}
	}
}
