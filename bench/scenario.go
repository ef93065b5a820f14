package main

import "context"

// scenario is one question that the benchmarks answer.
type scenario struct {
	name  string // of --only and of the files in bench/out
	about string
	run   func(context.Context, *lab) (*result, error)
}

// scenarios are all there are, in the order in which they run.
var scenarios []scenario

func init() { // not a literal: runners print the names of all
	scenarios = []scenario{
		{"serve", "throughput, latency and CPU time of POST /predict, against peers", serve},
		{"start", "from start to ready, and the supervisor's memory", start},
		{"allocs", "allocations of one request", allocs},
	}
}

func names() (all []string) {
	for _, s := range scenarios {
		all = append(all, s.name)
	}
	return all
}

// result is what a scenario found.
type result struct {
	Title  string   `json:"title"`
	Tables []table  `json:"-"` // for people; Raw has what they sum up
	Goals  []goal   `json:"goals"`
	Notes  []string `json:"notes"`
	Raw    any      `json:"raw"`
}
