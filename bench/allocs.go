package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// allocated is one line of `go test -bench -benchmem`.
type allocated struct {
	Name   string  `json:"name"`
	Nanos  float64 `json:"ns_per_op"`
	Bytes  float64 `json:"bytes_per_op"`
	Allocs float64 `json:"allocs_per_op"`
	Speed  float64 `json:"mb_per_s,omitempty"`          // of a benchmark that counts bytes
	Work   float64 `json:"mb_per_cpu_second,omitempty"` // of one that reads its CPU time, too
}

// allocs runs the benchmark of worker/api: one request through our handler, with a
// model that costs nothing.
func allocs(ctx context.Context, l *lab) (*result, error) {
	list, err := l.benchmarks(ctx, "./internal/worker/api", "BenchmarkHandle", "-benchtime", "20000x")
	if err != nil {
		return nil, err
	}
	r := &result{Title: "Allocations of one request in our handler", Raw: list}
	for _, a := range list {
		r.Goals = append(r.Goals, goal{Text: a.Name, AtMost: true, Unit: " allocations", Values: []float64{a.Allocs}}.judge())
	}
	r.Tables = []table{allocationTable(list)}
	r.Notes = []string{"20000 requests each after warm-up; the engine is a stand-in, so that ns is the handler's own time"}
	return r, nil
}

// benchmarks runs a benchmark of package pkg and returns its lines.
func (l *lab) benchmarks(ctx context.Context, pkg, name string, flags ...string) ([]allocated, error) {
	args := append([]string{"test", "-run", "^$", "-bench", "^" + name + "$", "-benchmem"}, flags...)
	text, err := l.output(ctx, "go", append(args, pkg)...)
	if err != nil {
		return nil, err
	}
	list := parseBenchmarks(text)
	if len(list) == 0 {
		return nil, fmt.Errorf("go test printed no benchmark:\n%s", text)
	}
	return list, nil
}

func allocationTable(list []allocated) table {
	t := table{head: []string{"request", "ns", "bytes", "allocations"}}
	for _, a := range list {
		t.add(a.Name, digits(a.Nanos), digits(a.Bytes), digits(a.Allocs))
	}
	return t
}

// parseBenchmarks reads lines such as
//
//	BenchmarkHandle/predict-2   20000   3021 ns/op   0 B/op   0 allocs/op
func parseBenchmarks(text string) (list []allocated) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		a := allocated{Name: fields[0]}
		if _, rest, ok := strings.Cut(a.Name, "/"); ok {
			a.Name = rest
		}
		if i := strings.LastIndexByte(a.Name, '-'); i > 0 {
			a.Name = a.Name[:i] // -2: GOMAXPROCS
		}
		a.Name = strings.ReplaceAll(a.Name, "_", " ")
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			switch fields[i+1] {
			case "ns/op":
				a.Nanos = v
			case "MB/s":
				a.Speed = v
			case "MB/CPU-s":
				a.Work = v
			case "B/op":
				a.Bytes = v
			case "allocs/op":
				a.Allocs = v
			}
		}
		list = append(list, a)
	}
	return list
}
