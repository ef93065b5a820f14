package rollout

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the actions into the histories")

// TestHistories replays testdata/*.txt: an event at the margin, the actions that follow
// it indented below.
func TestHistories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got := replay(t, string(text))
		if *update {
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want := strings.Split(string(text), "\n")
		for i, line := range strings.Split(got, "\n") {
			if i >= len(want) || want[i] != line {
				t.Errorf("%s:%d: got %q", name, i+1, line)
				break
			}
		}
		if len(got) != len(text) {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}

// replay returns the history with the actions as they are now.
func replay(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	var r interface{ Handle(Event) []Action }
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "  ") {
			continue
		}
		fmt.Fprintln(&b, line)
		var actions []Action
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "begin "):
			r, actions = Begin(parsePlan(t, line))
		case strings.HasPrefix(line, "grow "):
			r, actions = Grow(parseResize(t, line))
		case strings.HasPrefix(line, "shrink "):
			to, n := parseResize(t, line)
			ready := make([]bool, n-to)
			for i := range ready {
				ready[i] = !strings.HasSuffix(line, " coming") || i > 0
			}
			r, actions = Shrink(to, ready)
		default:
			actions = r.Handle(parseEvent(t, line))
		}
		for _, a := range actions {
			fmt.Fprintln(&b, "  "+a.String())
		}
	}
	return b.String()
}

// parsePlan reads "begin old=ready,coming new=2 surge=1 floor=2 bake=2s trial=1s dry".
func parsePlan(t *testing.T, line string) Plan {
	t.Helper()
	var p Plan
	for _, field := range strings.Fields(line)[1:] {
		key, value, _ := strings.Cut(field, "=")
		n, _ := strconv.Atoi(value)
		d, _ := time.ParseDuration(value)
		switch key {
		case "old":
			for state := range strings.SplitSeq(value, ",") {
				p.Old = append(p.Old, state == "ready")
			}
		case "new":
			p.New = n
		case "surge":
			p.Surge = n
		case "floor":
			p.Floor = n
		case "bake":
			p.Bake = d
		case "trial":
			p.Trial = d
		case "dry":
			p.DryRun = true
		default:
			t.Fatalf("%q: no field of a plan", field)
		}
	}
	return p
}

// parseResize reads "grow 2 to 4", and "shrink 4 to 2" with its first leaving worker
// perhaps " coming", and returns the lower number first.
func parseResize(t *testing.T, line string) (low, high int) {
	t.Helper()
	if _, err := fmt.Sscanf(strings.SplitN(line, " ", 2)[1], "%d to %d", &low, &high); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return min(low, high), max(low, high)
}

// parseEvent reads "old 1 ended: exit status 1", "counted 100/0 400/2" and the like.
func parseEvent(t *testing.T, line string) Event {
	t.Helper()
	head, why, _ := strings.Cut(line, ": ")
	words := strings.Fields(head)
	e := Event{Why: why}
	if words[0] == "old" || words[0] == "new" {
		slot, err := strconv.Atoi(words[1])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		e.Worker = Worker{Gen(slices.Index([]string{"old", "new"}, words[0])), slot}
		words = words[2:]
	}
	e.Kind = Kind(named(t, kindNames[:], words[0]))
	if e.Kind == OnCounted {
		if _, err := fmt.Sscanf(line, "counted %d/%d %d/%d", &e.Canary.Answers, &e.Canary.Errors, &e.Others.Answers, &e.Others.Errors); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return e
}
