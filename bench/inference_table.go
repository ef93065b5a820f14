package main

import (
	"fmt"
	"slices"
)

// distinct returns the names in list, each once, in their order.
func distinct(list []allocated) (names []string) {
	for _, a := range list {
		if !slices.Contains(names, a.Name) {
			names = append(names, a.Name)
		}
	}
	return names
}

// column returns a number of each line of list that is of the benchmark name.
func column(list []allocated, name string, number func(allocated) float64) (values []float64) {
	for _, a := range list {
		if a.Name == name {
			values = append(values, number(a))
		}
	}
	return values
}

func speed(a allocated) float64 { return a.Speed }
func work(a allocated) float64  { return a.Work }

// clockTable has the times of a request by preforkd's own clocks, means over a measurement
// and its warm-up, medians over the rounds.
func (r *inferred) clockTable(chosen []peer) table {
	t := table{head: []string{"by its own clocks, µs/request", "wait", "input", "engine", "output", "beyond engine and wait"}}
	for _, p := range chosen {
		if p.service != &preforkd {
			continue
		}
		middle := func(number func(*clocks) float64) string {
			return digits(median(r.column(p.name, func(v *visit) float64 { return number(v.Clocks) })))
		}
		t.add(p.name,
			middle(func(c *clocks) float64 { return c.Queue }), middle(func(c *clocks) float64 { return c.Input }),
			middle(func(c *clocks) float64 { return c.Engine }), middle(func(c *clocks) float64 { return c.Output }),
			middle((*clocks).beyond))
	}
	return t
}

// modelTable compares the models by what they answer and what they cost.
func (r *inferred) modelTable() table {
	t := table{head: []string{"model", "file", "right", "engine call, CPU µs", "requests/s, binary", "server CPU µs/request"}}
	for _, a := range r.Accuracy {
		t.add(a.Model, fmt.Sprintf("%.1f KB", float64(a.Bytes)/1000), a.String(), digits(median(r.calls(a.Model))),
			digits(median(r.column(a.Model, throughput))), digits(median(r.column(a.Model, serverCPU))))
	}
	return t
}

// imageTable has how fast an image is parsed.
func (r *inferred) imageTable() table {
	t := table{head: []string{"an image in JSON, parsed", "MB/CPU s, best", "median", "MB/s, best", "median", "ms, best", "allocations"}}
	for _, name := range distinct(r.Image) {
		works, speeds := column(r.Image, name, work), column(r.Image, name, speed)
		t.add(name+" numbers", digits(slices.Max(works)), digits(median(works)), digits(slices.Max(speeds)), digits(median(speeds)),
			digits(slices.Min(column(r.Image, name, func(a allocated) float64 { return a.Nanos }))/1e6),
			digits(slices.Max(column(r.Image, name, func(a allocated) float64 { return a.Allocs }))))
	}
	return t
}

// ratioTable compares each form with the bare process.
func (r *inferred) ratioTable() table {
	t := table{head: []string{"preforkd × bare, within a round", "median", "min–max"}}
	for _, pair := range []struct{ form, ours, bare string }{{"binary", binaryOurs, binaryBare}, {"JSON", infer, inferBare}} {
		for _, of := range []struct {
			what   string
			number func(*visit) float64
		}{{"throughput", throughput}, {"server CPU", serverCPU}} {
			all := ratios(r.column(pair.ours, of.number), r.column(pair.bare, of.number))
			if len(all) > 0 {
				t.add(of.what+" of "+pair.form+" infer", digits(median(all))+" ×", spread(all))
			}
		}
	}
	return t
}
