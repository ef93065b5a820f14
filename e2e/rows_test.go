package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"preforkd/internal/load"
)

// rows is a table of what clients saw of operations. `make bench-service` prints it.
type rows struct {
	mu    sync.Mutex // guards the fields below
	lines []string
	notes []string
}

// tableOf returns a table that is printed when the test ends.
func tableOf(t *testing.T) *rows {
	r := &rows{}
	t.Cleanup(func() {
		var b strings.Builder
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "operation\trequests\tfailed\tclosed\tdials\tlongest gap\t")
		for _, l := range r.lines {
			fmt.Fprintln(w, l)
		}
		w.Flush()
		for _, n := range r.notes {
			fmt.Fprintln(&b, n)
		}
		t.Logf("\n%s", &b)
		if path := os.Getenv("PREFORKD_ROWS"); path != "" {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			fmt.Fprintf(f, "%s\n%s\n", t.Name(), &b)
		}
	})
	return r
}

// add adds what clients that keep their connections, and others, saw of an operation.
func (r *rows) add(what string, kept, fresh *load.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	closed := kept.Closes.Idle + kept.Closes.Announced + kept.Closes.Late + kept.Closes.Unasked
	r.lines = append(r.lines, fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%v\t", what, kept.Requests+fresh.Requests,
		kept.Failures.Total()+fresh.Failures.Total(), closed, kept.Dials, kept.Gap.Round(100_000)))
}

func (r *rows) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}
