package admin

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// timeLayout is how a moment is printed: in the supervisor's time zone.
const timeLayout = "2006-01-02 15:04:05"

// Table prints st for people. What workers say of themselves is in it, so control
// characters are replaced: no text steers the reader's terminal.
func Table(w io.Writer, st Status) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "preforkd %s, generation %d, pid %d, up %s\n", clean(st.Version), st.Generation, st.PID, age(st.Uptime))
	if len(st.Listen) > 0 {
		fmt.Fprintf(&b, "listens on %s\n", clean(strings.Join(st.Listen, " ")))
	}
	if st.Operations != "" {
		fmt.Fprintf(&b, "metrics on http://%s/metrics\n", clean(st.Operations))
	}
	switch st.State {
	case "stopping":
		fmt.Fprintf(&b, "stopping: serves on for %s, then drains\n", latency(st.DrainsIn))
	case "draining":
		fmt.Fprintln(&b, "draining: it ends when what is in flight has been answered")
	}
	if st.RolledBackTo > 0 {
		fmt.Fprintf(&b, "runs what generation %d had, not what the configuration says; preforkd reload reads that\n", st.RolledBackTo)
	}
	if r := st.LastReload; r != nil {
		what := "reload"
		if r.RollbackTo > 0 {
			what = fmt.Sprintf("rollback to generation %d", r.RollbackTo)
		}
		fmt.Fprintf(&b, "last %s %s: %s, took %s%s\n",
			what, r.Time.Format(timeLayout), clean(r.Outcome), latency(r.Took), prefixed(": ", clean(r.Reason)))
	}
	memory(&b, st.Memory)
	layers(&b, st.Layers)
	if st.Tasks != nil {
		fmt.Fprintln(&b, tasksLine(st.Tasks))
	}
	quarantined(&b, st.Models)
	for _, p := range st.Pools {
		fmt.Fprintf(&b, "\npool %s, %s", clean(p.Name), plural(p.Size, "worker"))
		if p.Configured != p.Size && p.Configured > 0 {
			fmt.Fprintf(&b, ", scaled from %d", p.Configured)
		}
		if p.Waiting > 0 {
			fmt.Fprintf(&b, ", %s waiting", plural(p.Waiting, "request"))
		}
		if p.Oldest > 0 {
			fmt.Fprintf(&b, ", the first for %s", latency(p.Oldest))
		}
		fmt.Fprintln(&b)
		if p.Notice != "" {
			fmt.Fprintln(&b, clean(p.Notice))
		}
		if err := slots(&b, p.Slots); err != nil {
			return err
		}
	}
	if err := weights(&b, st.Models); err != nil {
		return err
	}
	if len(st.Events) > 0 {
		fmt.Fprintf(&b, "\nrecent events\n")
		if err := Lines(&b, st.Events); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// layers prints what workers have on each layer, where that is anything.
func layers(w io.Writer, list []Layer) {
	sep := "layers: "
	for _, l := range list {
		if l.Running == 0 && l.Waiting == 0 && l.Refused == 0 {
			continue
		}
		fmt.Fprintf(w, "%s%s %d running, %d waiting, %d refused", sep, clean(l.Name), l.Running, l.Waiting, l.Refused)
		sep = "; "
	}
	if sep == "; " {
		fmt.Fprintln(w)
	}
}

// Lines prints events for people, one a line.
func Lines(w io.Writer, events []Event) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range events {
		where := ""
		if e.Slot != nil {
			where = fmt.Sprintf("slot %d ", *e.Slot)
		}
		if e.PID != 0 {
			where += fmt.Sprintf("pid %d", e.PID)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", e.Time.Format(timeLayout), clean(e.Kind), strings.TrimSpace(where), clean(e.Text))
	}
	return t.Flush()
}

// slots prints a pool's slots.
func slots(w io.Writer, slots []Slot) error {
	if len(slots) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SLOT\tSTATE\tPID\tGEN\tAGE\tRESTARTS\tIN FLIGHT\tREQ/S\tP50\tP99\tPSS\tPRIVATE\tMODELS\tLAST EXIT")
	for _, s := range slots {
		state := clean(s.State)
		if s.Reason != "" {
			state += " (" + clean(s.Reason) + ")"
		}
		row := []string{fmt.Sprint(s.Index), state}
		if s.PID == 0 {
			row = append(row, "-", "-", "-", fmt.Sprint(s.Restarts), "-", "-", "-", "-", "-", "-", "-")
		} else {
			row = append(row, fmt.Sprint(s.PID), fmt.Sprint(s.Generation), age(s.Age), fmt.Sprint(s.Restarts),
				fmt.Sprint(s.InFlight), fmt.Sprintf("%.1f", s.RequestsPerSecond), orDash(s.P50 > 0, latency(s.P50)),
				orDash(s.P99 > 0, latency(s.P99)), orDash(s.PSS > 0, size(s.PSS)), orDash(s.Private > 0, size(s.Private)), orDash(len(s.Models) > 0, clean(strings.Join(s.Models, " "))))
		}
		fmt.Fprintln(t, strings.Join(append(row, orDash(s.LastExit != "", clean(lastExit(s)))), "\t"))
	}
	return t.Flush()
}

// lastExit says how the last process ended, and why where that does not say it.
func lastExit(s Slot) string {
	if s.Recycled != "" {
		return "recycled (" + s.Recycled + "), " + s.LastExit
	}
	switch s.LastReason {
	case "", "asked", "crash", "memory":
		return s.LastExit
	}
	return s.LastReason + ", " + s.LastExit
}

func orDash(known bool, text string) string {
	if !known {
		return "-"
	}
	return text
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// age prints how old something is, in its two largest units.
func age(d Duration) string {
	s := int64(time.Duration(d) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", max(s, 0))
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

// latency prints a duration to three digits, so that columns stay readable.
func latency(d Duration) string {
	t := time.Duration(d)
	for unit := time.Duration(1); unit < time.Hour; unit *= 10 {
		if t < 1000*unit {
			return t.Round(unit).String()
		}
	}
	return t.Round(time.Second).String()
}

// size prints a number of bytes.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// clean returns text in one line and without control characters.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
