package slot

import (
	"bufio"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// TestTableIsDocumented compares every cell of docs/internals/slot.md with the array.
func TestTableIsDocumented(t *testing.T) {
	f, err := os.Open("../../../docs/internals/slot.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	documented := map[State]bool{}
	var header []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		row := cells(sc.Text())
		switch {
		case row == nil:
			continue
		case strings.HasPrefix(row[0], "state"):
			header = row
		case len(row) == int(events)+1 && !strings.HasPrefix(row[0], "-"):
			s := stateNamed(t, strings.Fields(row[0])[0])
			documented[s] = true
			for e := range events {
				if header[e+1] != e.String() {
					t.Fatalf("column %d is %q, the event %q", e+1, header[e+1], e)
				}
				if got := text(table[s][e]); got != row[e+1] {
					t.Errorf("%s, %s: the page says %q, the array %q", s, e, row[e+1], got)
				}
			}
		}
	}
	for s := Starting; s < states; s++ {
		if !documented[s] {
			t.Errorf("state %s is not on the page", s)
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

func stateNamed(t *testing.T, name string) State {
	t.Helper()
	for s := Starting; s < states; s++ {
		if s.String() == name {
			return s
		}
	}
	t.Fatalf("no state is called %q", name)
	return None
}

func text(c cell) string {
	if c.state == None {
		return ""
	}
	if c.action == Nothing {
		return c.state.String()
	}
	return c.state.String() + ": " + c.action.String()
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []Event
		state  State
		action Action
	}{
		{"a worker becomes ready", []Event{OnHello, OnReady}, Ready, Nothing},
		{"READY=1 before any hello changes nothing", []Event{OnReady}, Starting, Nothing},
		{"a second READY=1 changes nothing", []Event{OnHello, OnReady, OnReady}, Ready, Nothing},
		{"it dies at boot", []Event{OnHello, OnExit}, Failed, Settle},
		{"the boot clock runs out", []Event{OnHello, OnTimeout}, Killing, Stop},
		{"it ignores TERM", []Event{OnHello, OnTimeout, OnTimeout}, Killing, Kill},
		{"it drains", []Event{OnHello, OnReady, OnLeave, OnExit}, Gone, Settle},
		{"drain clock runs out", []Event{OnHello, OnReady, OnLeave, OnTimeout}, Killing, Kill},
		{"an operator loses patience", []Event{OnHello, OnReady, OnLeave, OnQuit}, Killing, Stop},
		{"it leaves before it is ready", []Event{OnLeave, OnReady, OnExit}, Gone, Settle},
		{"nothing follows the end", []Event{OnExit, OnExit, OnReady, OnTimeout}, Failed, Nothing},
	} {
		s, a := Starting, Nothing
		for _, e := range c.events {
			s, a = Next(s, e)
		}
		if s != c.state || a != c.action {
			t.Errorf("%s: %s, %q; want %s, %q", c.name, s, a, c.state, c.action)
		}
	}
}

// TestEveryLifeEnds runs random lives: whatever happens, a process that exits is
// settled exactly once, nothing follows its end, and the clocks alone end a worker
// that says nothing.
func TestEveryLifeEnds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		s, settled := Starting, 0
		for range 30 {
			e := Event(r.IntN(int(events)))
			before := s
			var a Action
			s, a = Next(s, e)
			if a == Settle {
				settled++
			}
			if s == None || before.Ended() && s != before {
				t.Fatalf("%s, %s leads to %s", before, e, s)
			}
			if e == OnExit && !s.Ended() {
				t.Fatalf("%s: an ended process is %s", before, s)
			}
		}
		if s.Ended() != (settled == 1) || settled > 1 {
			t.Fatalf("settled %d times, state %s", settled, s)
		}
	}
	for s := Starting; s <= Killing; s++ {
		last := Nothing
		for st, i := s, 0; i < 4; i++ {
			st, last = Next(st, OnTimeout)
		}
		if last != Kill {
			t.Errorf("a silent worker that is %s is never killed", s)
		}
	}
}
