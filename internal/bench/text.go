package bench

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text prints r for people: a table, and each experiment with its sentence and its timeline.
func (r *Report) Text(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "preforkd lab %s, %s, measured %s\n", r.Version, plural(r.Cores, "core"), r.Time.Format("2006-01-02 15:04:05"))
	if r.Beside != "" {
		fmt.Fprintf(&b, "beside it: %s\n", r.Beside)
	}
	fmt.Fprintln(&b)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	head := "\tEXPERIMENT\tTASKS\tEXECUTION MODEL\tSECONDS\tTUTORIAL\tEXPECTED\tVERDICT"
	if r.Beside != "" {
		head += "\tFASTAPI\tVERDICT"
	}
	fmt.Fprintln(t, head)
	for i := range r.Rows {
		fmt.Fprintln(t, r.Rows[i].line(i+1, r.Beside != ""))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range r.Rows {
		r.Rows[i].explain(&b, i+1)
	}
	fmt.Fprintln(&b, "\ntimelines: . in line, - waits, # on a core; one line a request, to the last answer")
	fmt.Fprintln(&b, "waits are judged by their time together, work by who had a core when: other programs need cores, too")
	_, err := w.Write(b.Bytes())
	return err
}

func (row *Row) line(n int, beside bool) string {
	tutorial := ""
	switch {
	case row.Wrong != "":
		tutorial = fmt.Sprintf("%.2f (cannot be)", row.Tutorial)
	case row.Tutorial > 0:
		tutorial = fmt.Sprintf("%.2f", row.Tutorial)
	}
	line := fmt.Sprintf("%d\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s", n, row.Title, row.tasks(), row.Model, row.Here.Seconds, tutorial, row.Expected, row.Here.verdict())
	switch {
	case !beside:
	case row.Beside == nil:
		line += "\t\t"
	default:
		line += fmt.Sprintf("\t%.2f\t%s", row.Beside.Seconds, row.Beside.verdict())
	}
	return line
}

func (row *Row) tasks() string {
	if row.Each == 0 {
		return fmt.Sprintf("%d x %.2f s", row.Tasks, row.Here.Alone)
	}
	return fmt.Sprintf("%d x %.1f s", row.Tasks, row.Each)
}

// verdict says whether the relation is the expected one.
func (o *Outcome) verdict() string {
	relation, _, _ := strings.Cut(o.Relation, ":")
	if o.OK && o.Attempts > 1 {
		return fmt.Sprintf("yes: %s (attempt %d)", relation, o.Attempts)
	}
	if o.OK {
		return "yes: " + relation
	}
	wanted, _, _ := strings.Cut(o.Wanted, ":")
	return "no: " + relation + ", not " + wanted
}

// explain prints the sentence and the timelines.
func (row *Row) explain(w io.Writer, n int) {
	fmt.Fprintf(w, "\n%d %s: %s\n", n, row.Name, row.Sentence)
	row.Here.draw(w, "preforkd")
	if row.Beside != nil {
		row.Beside.draw(w, "fastapi")
	}
}

const (
	drawnColumns = 60
	drawnBars    = 4 // as many are drawn, and the last
)

// draw prints the answers as bars, from the first request that was sent to the last answer.
func (o *Outcome) draw(w io.Writer, who string) {
	for i := range o.Bars {
		if i >= drawnBars && i < len(o.Bars)-1 {
			continue
		}
		if i > drawnBars {
			fmt.Fprintf(w, "    %-8s  … %d more\n", "", i-drawnBars)
		}
		fmt.Fprintf(w, "    %-8s  %s  %.2f s\n", who, o.Bars[i].draw(o.Seconds), o.Bars[i].Ended)
		who = ""
	}
}

// draw is b in columns of which the last ends at the time whole.
func (b *Bar) draw(whole float64) string {
	columns := []byte(strings.Repeat(" ", drawnColumns))
	fill := func(from, to float64, with byte) {
		if whole <= 0 || to < from {
			return
		}
		first := int(from / whole * drawnColumns)
		for i := first; i < drawnColumns && (i == first || float64(i) < to/whole*drawnColumns); i++ {
			columns[i] = with
		}
	}
	fill(b.Sent, b.Began, '.')
	if len(b.Core) == 0 {
		fill(b.Began, b.Ended, '-')
	} else {
		fill(b.Began, b.Ended, '.')
	}
	for _, s := range b.Core {
		fill(s[0], s[1], '#')
	}
	return string(columns)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
