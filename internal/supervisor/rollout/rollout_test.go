package rollout

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTableIsDocumented compares every cell of docs/internals/rollout.md with the array.
func TestTableIsDocumented(t *testing.T) {
	f, err := os.Open("../../../docs/internals/rollout.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	documented := map[Phase][]input{}
	var header []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		row := cells(sc.Text())
		switch {
		case row == nil:
			header = nil
		case strings.HasPrefix(row[0], "phase"):
			header = row
		case header != nil && !strings.HasPrefix(row[0], "-"):
			p := named(t, phaseNames[:], strings.TrimSpace(strings.Split(row[0], "(")[0]))
			for i, text := range row[1:] {
				in := input(named(t, inputNames[:], header[i+1]))
				documented[Phase(p)] = append(documented[Phase(p)], in)
				if got := textOf(table[p][in]); got != text {
					t.Errorf("%s, %s: the page says %q, the array %q", Phase(p), in, text, got)
				}
			}
		}
	}
	for p := Waiting; p < phases; p++ {
		for in := range inputs {
			if n := len(slices.DeleteFunc(slices.Clone(documented[p]), func(d input) bool { return d != in })); n != 1 {
				t.Errorf("%s, %s: %d times on the page", p, in, n)
			}
		}
	}
}

func cells(line string) []string {
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	row := strings.Split(strings.Trim(line, "|"), "|")
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	return row
}

func named(t *testing.T, names []string, name string) int {
	t.Helper()
	i := slices.Index(names, name)
	if i < 0 {
		t.Fatalf("nothing is called %q", name)
	}
	return i
}

func textOf(c cell) string {
	switch {
	case c.phase == None:
		return ""
	case c.step == nothing:
		return c.phase.String()
	}
	return c.phase.String() + ": " + c.step.String()
}

// reach holds events that lead from the start of a reload of two workers, one at a
// time, into each phase.
var reach = map[Phase][]string{
	Waiting:  {},
	Booting:  {},
	Testing:  {"new 0 ready"},
	Baking:   {"new 0 ready", "passed"},
	Proving:  {"new 0 ready", "passed", "clock"},
	Trying:   {"new 0 ready", "passed", "clock", "passed"},
	Judging:  {"new 0 ready", "passed", "clock", "passed", "clock"},
	Filling:  {"new 0 ready", "passed", "clock", "passed", "clock", "counted 200/0 400/0"},
	Holding:  {"turn", "new 0 ready", "passed", "clock", "passed", "clock", "counted 200/0 400/0", "old 0 ended", "new 1 ready"},
	Draining: {"new 0 ready", "passed", "clock", "passed", "clock", "counted 200/0 400/0", "old 0 ended", "new 1 ready"},
	Undoing:  {"new 0 ready", "passed", "clock", "passed", "clock", "counted 200/0 400/0", "old 0 ended", "abort"},
	Done:     {"stop"},
}

// cellTests is a sequence of events for each cell that is not empty: what comes after
// those of reach, the phase it must lead to, and one action it must lead to.
var cellTests = []struct {
	phase  Phase
	input  input
	events []string
	next   Phase
	action string
}{
	{Waiting, turn, []string{"turn"}, Booting, "start new 0 held"},
	{Waiting, filled, []string{"turn"}, Holding, "report others, 0 of 0 ready"},
	{Waiting, oldLost, []string{"old 1 ended: x"}, Waiting, "start old 1"},
	{Waiting, abort, []string{"abort: x"}, Done, "finish, rolled back: aborted: x"},
	{Waiting, stop, []string{"stop"}, Done, "finish, stopped"},
	{Booting, newReady, []string{"new 0 ready"}, Testing, "self-test new 0"},
	{Booting, newLost, []string{"new 0 ended: exit status 3"}, Done, "finish, rolled back: the canary did not become ready: exit status 3"},
	{Booting, oldLost, []string{"old 1 ended: x"}, Booting, "start old 1"},
	{Booting, abort, []string{"abort: interrupted"}, Undoing, "remove new 0"},
	{Booting, stop, []string{"stop"}, Done, "finish, stopped"},
	{Testing, newLost, []string{"new 0 lost: heartbeat clock"}, Undoing, "report undo, 0 of 2 ready: the canary failed its self-test: heartbeat clock"},
	{Testing, oldLost, []string{"old 0 lost: x", "old 0 ended: x"}, Testing, "start old 0"},
	{Testing, passed, []string{"passed"}, Baking, "clock 2s"},
	{Testing, rehearsed, []string{"passed"}, Undoing, "remove new 0"},
	{Testing, failed, []string{"failed: label 7, expected 4"}, Undoing, "report undo, 1 of 2 ready: the canary failed its self-test: label 7, expected 4"},
	{Testing, abort, []string{"abort"}, Undoing, "report undo, 1 of 2 ready: aborted"},
	{Testing, stop, []string{"stop"}, Done, "finish, stopped"},
	{Baking, newLost, []string{"new 0 ended: signal 11"}, Done, "finish, rolled back: the canary failed during the bake: signal 11"},
	{Baking, oldLost, []string{"old 0 ended: x"}, Baking, "start old 0"},
	{Baking, passed, []string{"passed"}, Baking, "self-test new 0"},
	{Baking, failed, []string{"failed: x"}, Undoing, "clock off"},
	{Baking, clock, []string{"clock"}, Proving, "report last self-test, 1 of 2 ready"},
	{Baking, abort, []string{"abort"}, Undoing, "remove new 0"},
	{Baking, stop, []string{"stop"}, Done, "clock off"},
	{Proving, newLost, []string{"new 0 lost: x"}, Undoing, "report undo, 0 of 2 ready: the canary failed during the bake: x"},
	{Proving, oldLost, []string{"old 0 ended: x"}, Proving, "start old 0"},
	{Proving, passed, []string{"passed"}, Trying, "accept new 0"},
	{Proving, failed, []string{"failed: x"}, Undoing, "remove new 0"},
	{Proving, abort, []string{"abort"}, Undoing, "remove new 0"},
	{Proving, stop, []string{"stop"}, Done, "finish, stopped"},
	{Trying, newLost, []string{"new 0 ended: signal 9"}, Done, "finish, rolled back: the canary failed its trial: signal 9"},
	{Trying, oldLost, []string{"old 0 ended: x"}, Trying, "start old 0"},
	{Trying, clock, []string{"clock"}, Judging, "count"},
	{Trying, abort, []string{"abort"}, Undoing, "drain new 0"},
	{Trying, stop, []string{"stop"}, Done, "clock off"},
	{Judging, newLost, []string{"new 0 lost: x"}, Undoing, "report undo, 0 of 2 ready: the canary failed its trial: x"},
	{Judging, oldLost, []string{"old 0 ended: x"}, Judging, "start old 0"},
	{Judging, few, []string{"counted 99/99 400/0"}, Judging, "self-test new 0"},
	{Judging, passed, []string{"counted 0/0 0/0", "passed"}, Filling, "drain old 0"},
	{Judging, failed, []string{"counted 0/0 0/0", "failed: x"}, Undoing, "drain new 0"},
	{Judging, good, []string{"counted 100/1 400/0"}, Filling, "drain old 0"},
	{Judging, bad, []string{"counted 100/9 400/0"}, Undoing, "drain new 0"},
	{Judging, abort, []string{"abort"}, Undoing, "drain new 0"},
	{Judging, stop, []string{"stop"}, Done, "finish, stopped"},
	{Filling, newReady, []string{"old 0 ended", "new 1 ready"}, Draining, "commit"},
	{Filling, newLost, []string{"old 0 ended", "new 1 ended: x"}, Undoing, "start old 0"},
	{Filling, oldReady, []string{"old 1 ended: x", "old 1 ready"}, Filling, ""},
	{Filling, oldLost, []string{"old 0 ended", "old 1 ended: x"}, Filling, "start old 1"},
	{Filling, left, []string{"old 0 ended"}, Filling, "start new 1"},
	{Filling, complete, []string{"old 0 ended", "new 1 ready"}, Draining, "drain old 1"},
	{Filling, abort, []string{"abort: x"}, Undoing, "report undo, 1 of 2 ready: aborted: x"},
	{Filling, stop, []string{"stop"}, Done, "finish, stopped"},
	{Filling, filled, []string{"old 0 ended", "new 1 ready"}, Holding, "report others, 2 of 2 ready"},
	{Holding, newLost, []string{"new 1 ended: x"}, Undoing, "start old 0"},
	{Holding, oldLost, []string{"old 1 ended: x"}, Holding, "start old 1"},
	{Holding, agreed, []string{"agreed"}, Draining, "commit"},
	{Holding, abort, []string{"abort: x"}, Undoing, "drain new 0"},
	{Holding, stop, []string{"stop"}, Done, "finish, stopped"},
	{Draining, newLost, []string{"new 1 ended: x"}, Draining, "start new 1"},
	{Draining, left, []string{"old 1 ended"}, Done, "finish, committed"},
	{Draining, complete, []string{"old 1 ended"}, Done, "finish, committed"},
	{Draining, stop, []string{"stop"}, Done, "finish, committed"},
	{Undoing, newLost, []string{"new 1 ended", "new 0 ended: x"}, Undoing, ""},
	{Undoing, oldReady, []string{"new 1 ended", "old 0 ready"}, Undoing, "drain new 0"},
	{Undoing, oldLost, []string{"new 1 ended", "old 0 ended: x"}, Undoing, "start old 0"},
	{Undoing, left, []string{"new 1 ended"}, Undoing, "start old 0"},
	{Undoing, complete, []string{"new 1 ended", "old 0 ready", "new 0 ended"}, Done, "finish, rolled back: aborted"},
	{Undoing, stop, []string{"stop"}, Done, "finish, rolled back: aborted"},
}

// TestCells reaches every cell: those that are not empty lead where cellTests says, and
// no event of an empty one leads out of its phase.
func TestCells(t *testing.T) {
	seen := [phases][inputs]bool{}
	for _, c := range cellTests {
		seen[c.phase][c.input] = true
		if table[c.phase][c.input].phase == None {
			t.Errorf("%s, %s: the cell is empty", c.phase, c.input)
		}
		p := Plan{Old: []bool{true, true}, New: 2, Surge: 1, Floor: 2, Bake: 2e9, Trial: 1e9, DryRun: c.input == rehearsed}
		p.Joint = c.phase == Waiting || c.phase == Holding || c.input == filled
		if c.phase == Waiting && c.input == filled { // the new generation has no such pool
			p.New = 0
		}
		r, _ := Begin(p)
		if c.phase == Filling && p.Joint {
			r.Handle(Event{Kind: OnTurn})
		}
		for _, e := range reach[c.phase] {
			r.Handle(parseEvent(t, e))
		}
		if r.Phase() != c.phase {
			t.Fatalf("%v leads to %s, not to %s", reach[c.phase], r.Phase(), c.phase)
		}
		var last []string
		for _, e := range c.events {
			last = texts(r.Handle(parseEvent(t, e)))
		}
		if r.Phase() != c.next || c.action != "" && !slices.Contains(last, c.action) || c.action == "" && len(last) > 0 {
			t.Errorf("%s, %v: %s, %q; want %s, %q", c.phase, c.events, r.Phase(), last, c.next, c.action)
		}
	}
	for p := Waiting; p < phases; p++ {
		for in := range inputs {
			if table[p][in].phase != None && !seen[p][in] {
				t.Errorf("%s, %s: no test", p, in)
			}
		}
	}
}

// TestEmptyCells feeds every event that has no meaning in a phase.
func TestEmptyCells(t *testing.T) {
	for p, none := range map[Phase][]string{
		Waiting:  {"passed", "failed", "clock", "agreed", "old 0 ready", "new 0 ready"},
		Holding:  {"passed", "failed", "clock", "turn", "new 0 ready", "old 0 ended"},
		Booting:  {"turn", "agreed", "passed", "failed", "clock", "counted 100/100 0/0", "old 0 ready", "new 1 ready", "new 1 ended", "new 7 ended", "old -1 lost"},
		Testing:  {"clock", "counted 100/100 0/0", "new 0 ready", "old 0 ready"},
		Baking:   {"counted 100/100 0/0", "new 0 ready", "old 0 ready"},
		Proving:  {"clock", "counted 100/100 0/0", "new 0 ready"},
		Trying:   {"passed", "failed", "counted 100/100 0/0", "new 0 ready"},
		Judging:  {"passed", "failed", "clock", "new 0 ready"},
		Filling:  {"passed", "failed", "clock", "counted 100/100 0/0", "new 0 ready", "old 0 ready", "old 0 lost"},
		Draining: {"passed", "failed", "clock", "counted 100/100 0/0", "new 0 ready", "old 1 ready", "old 1 lost", "old 0 ended", "abort"},
		Undoing:  {"passed", "failed", "clock", "counted 100/100 0/0", "new 1 ready", "new 1 lost", "abort"},
		Done:     {"new 0 ended", "old 0 ended", "passed", "failed", "clock", "abort", "stop"},
	} {
		r, _ := Begin(Plan{Old: []bool{true, true}, New: 2, Surge: 1, Floor: 2, Bake: 2e9, Trial: 1e9, Joint: p == Waiting || p == Holding})
		for _, e := range reach[p] {
			r.Handle(parseEvent(t, e))
		}
		for _, e := range none {
			if got := texts(r.Handle(parseEvent(t, e))); len(got) > 0 || r.Phase() != p {
				t.Errorf("%s, %s: %q, %s", p, e, got, r.Phase())
			}
		}
	}
}

func texts(actions []Action) []string {
	var all []string
	for _, a := range actions {
		all = append(all, a.String())
	}
	return all
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		canary, others Tally
		want           input
	}{
		{Tally{}, Tally{}, few},
		{Tally{99, 99}, Tally{1000, 0}, few},
		{Tally{100, 0}, Tally{}, good},
		{Tally{100, 1}, Tally{1000, 0}, good},
		{Tally{100, 2}, Tally{1000, 0}, bad},
		{Tally{100, 100}, Tally{1000, 1000}, good}, // whatever fails, it is not the new generation
		{Tally{100, 25}, Tally{1000, 200}, good},
		{Tally{100, 40}, Tally{1000, 200}, bad},
		{Tally{100000, 1000}, Tally{100000, 0}, good}, // the tolerance itself
		{Tally{100000, 1200}, Tally{100000, 0}, bad},
		{Tally{100, 50}, Tally{}, bad}, // nobody to compare it with
		{Tally{100, 200}, Tally{100, 0}, bad},
	} {
		if got, why := judge(c.canary, c.others); got != c.want || (got == bad) != (why != "") {
			t.Errorf("%+v against %+v: %s, %q", c.canary, c.others, got, why)
		}
	}
}
