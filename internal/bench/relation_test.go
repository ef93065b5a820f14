package bench

import (
	"math"
	"strings"
	"testing"
)

// waits are n bars of one after the other, so many at once.
func waits(n, atOnce int, one float64) (bars []Bar) {
	for i := range n {
		began := float64(i/atOnce) * one
		bars = append(bars, Bar{Began: began, Ended: began + one})
	}
	return bars
}

// turns are n tasks that have a core by turns, or each its own.
func turns(n int, own bool) (bars []Bar) {
	bars = make([]Bar, n)
	for k := range 10 {
		for i := range bars {
			at := float64(k*n+i) * 0.01
			if own {
				at = float64(k) * 0.01
			}
			bars[i].Core = append(bars[i].Core, [2]float64{at, at + 0.01})
		}
	}
	for i := range bars {
		bars[i].Ended = bars[i].Core[9][1]
	}
	return bars
}

func TestJudged(t *testing.T) {
	after := []Bar{{Began: 0, Ended: 0.1, Core: [][2]float64{{0, 0.1}}}, {Began: 0.099, Ended: 0.2, Core: [][2]float64{{0.1, 0.2}}}}
	three := expectation{Waves, 3}
	for _, c := range []struct {
		name string
		want expectation
		last float64
		bars []Bar
		got  Relation
	}{
		{"ten waits at once", expectation{Relation: Concurrent}, 0.11, waits(10, 10, 0.1), Concurrent},
		{"on a busy machine", expectation{Relation: Concurrent}, 0.3, waits(10, 10, 0.1), Concurrent},
		{"one after the other", expectation{Relation: Concurrent}, 1.02, waits(10, 1, 0.1), Sequential},
		{"three waves", three, 0.32, waits(100, 40, 0.1), Waves},
		{"no waves", three, 0.12, waits(100, 100, 0.1), Concurrent},
		{"too many waves", three, 9.9, waits(100, 1, 0.1), Sequential},
		{"work by turns", expectation{Relation: Parallel}, 0.2, turns(2, false), Interleaved},
		{"ten by turns", expectation{Relation: Sequential}, 1, turns(10, false), Interleaved},
		{"a core each", expectation{Relation: Interleaved}, 0.1, turns(2, true), Parallel},
		{"a core each, and slow", expectation{Relation: Parallel}, 5, turns(2, true), Parallel},
		{"work one after the other", expectation{Relation: Interleaved}, 0.2, after, Sequential},
	} {
		if got := c.want.judged(0.1, c.last, c.bars); got.Relation != c.got || got.Relation == Waves && got != three {
			t.Errorf("%s: %v, want %s", c.name, got, c.got)
		}
	}
}

func TestAtOnce(t *testing.T) {
	bars := []Bar{{Core: [][2]float64{{0, 2}, {3, 4}}}, {Core: [][2]float64{{1, 2}, {5, 6}}}}
	if got := atOnce(bars, Bar.cores); math.Abs(got-5.0/4) > 1e-9 {
		t.Errorf("%v", got)
	}
	if got := atOnce(nil, Bar.cores); got != 0 {
		t.Errorf("%v", got)
	}
}

func TestDraw(t *testing.T) {
	for _, c := range []struct {
		bar  Bar
		want string
	}{
		{Bar{Sent: 0, Began: 0, Ended: 1}, strings.Repeat("-", 60)},
		{Bar{Sent: 0, Began: 0.5, Ended: 1}, strings.Repeat(".", 30) + strings.Repeat("-", 30)},
		{Bar{Began: 0, Ended: 0.5}, strings.Repeat("-", 30) + strings.Repeat(" ", 30)},
		{
			Bar{Began: 0, Ended: 1, Core: [][2]float64{{0, 0.25}, {0.5, 0.75}}},
			strings.Repeat("#", 15) + strings.Repeat(".", 15) + strings.Repeat("#", 15) + strings.Repeat(".", 15),
		},
		{Bar{Began: 2, Ended: 3}, strings.Repeat(".", 60)}, // a clock that was set
	} {
		if got := c.bar.draw(1); got != c.want {
			t.Errorf("%+v:\n%q\n%q", c.bar, got, c.want)
		}
	}
}

// TestExperimentsAreWhole: each has a name of its own, a sentence, and paths that there are.
func TestExperimentsAreWhole(t *testing.T) {
	text := ours{}.settings("/d", shape{1, 1})
	for _, cores := range []int{1, 2, 8} {
		names := map[string]bool{}
		for _, e := range experiments(2, cores) {
			if names[e.name] || e.title == "" || e.model == "" || e.say == nil || e.tasks < 2 {
				t.Errorf("%+v", e)
			}
			names[e.name] = true
			if e.here.body == "" && !strings.Contains(text, "\n  "+e.here.path+": ") {
				t.Errorf("%s: no route %s in\n%s", e.name, e.here.path, text)
			}
			if e.beside != nil && !strings.Contains(string(app), `"`+e.beside.path+`"`) {
				t.Errorf("%s: no path %s in app.py", e.name, e.beside.path)
			}
			if cores == 1 && (e.here.want.Relation == Parallel || e.beside != nil && e.beside.want.Relation == Parallel) {
				t.Errorf("%s cannot be parallel on one core", e.name)
			}
		}
	}
	if list, err := chosen(experiments(2, 2), []string{"waves", "nothing"}); err == nil || !strings.Contains(err.Error(), "nothing is no experiment") {
		t.Errorf("%v, %v", list, err)
	}
}
