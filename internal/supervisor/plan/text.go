package plan

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"preforkd/internal/supervisor/sizing"
)

// Text writes r for people.
func (r Report) Text(out io.Writer) error {
	var b strings.Builder
	in := r.Input
	fmt.Fprintf(&b, "Machine: %s, %s; %s are for workers, a quarter is left to the kernel and everything else.\n",
		cores(in.Cores), size(in.Memory), size(r.Room))
	weights := "a copy in each"
	if in.Shared {
		weights = "one copy for all"
	}
	fmt.Fprintf(&b, "Worker:  %s, and %s of weights, %s; %s in common; %s for a pod's main process and supervisor (%s).\n",
		size(in.Own), size(in.Weights), weights, size(in.Common), size(in.Pod), in.Source)
	b.WriteString("Request: ")
	if in.Model != "" {
		fmt.Fprintf(&b, "%s: ", in.Model)
	}
	fmt.Fprintf(&b, "%s, and %s of a core's time; wanted: p99 of %s", short(in.Latency), short(in.CPU), short(in.Target))
	if in.Rate > 0 {
		fmt.Fprintf(&b, " at %s requests/s", number(in.Rate))
	}
	b.WriteString(".\n")
	r.models(&b)
	r.table(&b, fmt.Sprintf("Layouts of %s (memory: at the peak of a reload, of all pods together)", count(r.Wanted, "worker")), r.Layouts)
	if r.Reduced != nil {
		n := r.Reduced[0].Pods * r.Reduced[0].Workers
		r.table(&b, fmt.Sprintf("None of them fits. The most that does: %s", count(n, "worker")), r.Reduced)
	}
	r.otherwise(&b)
	r.verdict(&b)
	r.steps(&b)
	fmt.Fprintf(&b, "\nStep %d of 4, %s.\nNext: step %s.\n", r.Step.Now, r.Step.At, r.Step.Next)
	_, err := io.WriteString(out, b.String())
	return err
}

// otherwise says what the first layout would need with weights the other way, where that
// decides whether it fits.
func (r Report) otherwise(b *strings.Builder) {
	first := r.Layouts[0]
	switch {
	case (first.Copies <= r.Room) == (first.OneCopy <= r.Room):
	case r.Input.Shared:
		fmt.Fprintf(b, "With a copy of the weights in each worker, %d x %d would need %s and not fit, by %s.\n", first.Pods, first.Workers, size(first.Copies), size(first.Copies-r.Room))
	default:
		fmt.Fprintf(b, "With one copy of the weights for all, %d x %d would need %s and fit.\n", first.Pods, first.Workers, size(first.OneCopy))
	}
}

func (r Report) models(b *strings.Builder) {
	if len(r.Input.Models) == 0 {
		layer := Layer(time.Duration(r.Input.Latency))
		fmt.Fprintf(b, "Layer:   %s (%s).\n", layer, layerWhy(layer))
		return
	}
	b.WriteString("\nModels, each asked alone, one request after the other:\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  model\tlatency\tCPU\tmeasured with\tlayer")
	for _, m := range r.Input.Models {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s (%s)\n", m.Name, short(m.Latency), short(m.CPU), m.Sample, m.Layer, layerWhy(m.Layer))
	}
	_ = w.Flush() // into memory
}

// barWidth is that of the longest bar.
const barWidth = 24

func bar(v, most float64) string {
	n := 0
	if most > 0 {
		n = int(v/most*barWidth + 0.5)
	}
	if n == 0 {
		return ""
	}
	return " " + strings.Repeat("█", n)
}

func (r Report) table(b *strings.Builder, title string, all []Layout) {
	most := 0.0
	for _, l := range all {
		most = max(most, l.Rate)
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	cost := ""
	if r.Input.Price > 0 {
		cost = "\tper million"
	}
	fmt.Fprintf(w, "  pods x workers\tcopies\tone copy\tfits\toverhead\tone pod dead%s\trequests/s at p99 <= %s\n", cost, short(r.Input.Target))
	for _, l := range all {
		fits := "yes"
		if !l.Fits {
			fits = "no, by " + size(l.Short)
		}
		if r.Input.Price > 0 {
			cost = "\t" + money(l.Cost)
		}
		fmt.Fprintf(w, "  %d x %d\t%s\t%s\t%s\t%s\t%s%s\t%s%s\n", l.Pods, l.Workers, size(l.Copies), size(l.OneCopy), fits,
			size(l.Overhead), number(l.Left), cost, number(l.Rate), bar(l.Rate, most))
	}
	_ = w.Flush() // into memory
}

func (r Report) verdict(b *strings.Builder) {
	if r.Best == nil {
		fmt.Fprintf(b, "\nNo recommendation: %s.\n", r.Reason)
		return
	}
	in := r.Input
	fmt.Fprintf(b, "\nRecommended: %s of %s: %s.\n", count(r.Best.Pods, "pod"), count(r.Best.Workers, "worker"), r.Reason)
	w := r.Worker
	fmt.Fprintf(b, "  Each worker: GOMAXPROCS %d, GOMEMLIMIT %s, 1 engine thread per runner, queue.max_bytes up to %s, %d blocking calls at once.\n",
		w.Procs, size(w.GoMemory), size(w.QueueBytes), w.Threads)
	fmt.Fprintf(b, "  Each pod: %s and a memory limit of %s. A pod's death takes %s of the requests/s, a worker's %s.\n",
		cpus(in.podCores(*r.Best)), size(in.limit(*r.Best)), percent(1/float64(r.Best.Pods)), percent(1/float64(r.Best.Pods*r.Best.Workers)))
	if text := in.prepares(*r.Best); text != "" {
		fmt.Fprintf(b, "  %s\n", text)
	}
	p := r.Pods
	switch {
	case p == nil:
	case p.Least == 0:
		fmt.Fprintf(b, "  %s requests/s at p99 <= %s: no number of pods does that, as one inference takes %s.\n", number(in.Rate), short(in.Target), short(in.Latency))
	default:
		fmt.Fprintf(b, "  %s requests/s at p99 <= %s: %s carry that (%s each), %d with one to spare: %s, %s", number(in.Rate), short(in.Target),
			count(p.Least, "pod"), number(p.Each), p.Safe, cpus(p.Cores), size(p.Bytes))
		if p.Cost > 0 {
			fmt.Fprintf(b, ", %s per million requests", money(p.Cost))
		}
		b.WriteString(".\n")
	}
}

// prepares says that preparing takes more than the limit of a pod, or nothing.
func (in Input) prepares(l Layout) string {
	takes := in.preparing(l)
	if takes == 0 {
		return ""
	}
	return fmt.Sprintf("A reload that prepares other weights in the pod takes %s, more than that limit: raise it, or have them prepared before (preforkd models prepare).", size(takes))
}

func (r Report) steps(b *strings.Builder) {
	if len(r.Input.Steps) == 0 {
		return
	}
	most := 0.0
	for _, s := range r.Input.Steps {
		most = max(most, s.Rate)
	}
	b.WriteString("\nUnder load:\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  workers\tp99\tPSS\trequests/s")
	for _, s := range r.Input.Steps {
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s%s\n", s.Workers, short(s.P99), size(s.PSS), number(s.Rate), bar(s.Rate, most))
	}
	_ = w.Flush() // into memory
	if r.Input.Stopped != "" {
		fmt.Fprintf(b, "No more workers were tried: %s.\n", r.Input.Stopped)
	}
	fmt.Fprintf(b, "The line bends at %s: %s.\n", count(r.Bend.Workers, "worker"), r.Bend.Why)
}

// Text writes c for people.
func (c Capacity) Text(out io.Writer) error {
	_, err := fmt.Fprintf(out, `capacity = pods x workers x what a worker does at once
  waiting:   %d x %d x %s = %s requests that wait for something else than a core
  computing: %d x %d x 1 = %s computations at the same instant, one engine thread each
`, c.Pods, c.Workers, grouped(c.WaitsEach), grouped(c.Waits), c.Pods, c.Workers, grouped(c.Computations))
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func cores(n float64) string {
	if n == 1 {
		return "1 core"
	}
	return number(n) + " cores"
}

func cpus(n float64) string {
	if n == 1 {
		return "1 CPU"
	}
	return number(n) + " CPUs"
}

// number writes v with three digits or more.
func number(v float64) string {
	switch {
	case v >= 100:
		return grouped(int(v + 0.5))
	case v >= 10:
		return strconv.FormatFloat(float64(int(v*10+0.5))/10, 'f', -1, 64)
	}
	return strconv.FormatFloat(float64(int(v*100+0.5))/100, 'f', -1, 64)
}

// grouped writes 12000 as 12,000.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func percent(v float64) string { return number(v*100) + " %" }

func money(v float64) string { return fmt.Sprintf("%.2f", v) }

// short writes t with three digits.
func short(t Time) string {
	d := time.Duration(t)
	unit := time.Duration(1)
	for d >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}

// size writes a number of bytes, of the small ones too.
func size(n uint64) string {
	if n > 0 && n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1<<10-1)>>10)
	}
	return sizing.Size(n)
}
