package plan

import (
	"fmt"
	"math"
	"time"

	"preforkd/internal/supervisor/sizing"
)

// Input is what a plan rests on.
type Input struct {
	Cores  float64 `json:"cores"`
	Memory uint64  `json:"memory_bytes"` // that may be used in all
	// Own is the memory of a worker without its models' weights, Common what workers share of
	// programs and libraries, Weights what they could share of models.
	Own     uint64 `json:"worker_bytes"`
	Common  uint64 `json:"common_bytes"`
	Weights uint64 `json:"weights_bytes"`
	Shared  bool   `json:"weights_shared"` // workers have one copy of the weights
	Pod     uint64 `json:"pod_bytes"`      // of main process and supervisor

	// Latency is that of one inference with its request, CPU what it takes of a core's time.
	Latency Time    `json:"latency_seconds"`
	CPU     Time    `json:"cpu_seconds"`
	Model   string  `json:"model,omitempty"` // whose these are; empty: given
	Models  []Model `json:"models,omitempty"`

	Target  Time    `json:"target_p99_seconds"`
	Rate    float64 `json:"wanted_requests_per_second,omitempty"` // 0: none is wanted
	Price   float64 `json:"price_per_core_hour,omitempty"`        // 0: not known
	Steps   []Step  `json:"verified,omitempty"`                   // of a load test
	Stopped string  `json:"verified_no_further,omitempty"`        // why Steps end before they should
	Source  string  `json:"source"`                               // "given" or "measured"
}

// Model is one model, as measured alone.
type Model struct {
	Name    string `json:"name"`
	Latency Time   `json:"latency_seconds"`
	CPU     Time   `json:"cpu_seconds"`
	Layer   string `json:"layer"`
	Sample  string `json:"sample"` // what it was measured with
}

// Time is a duration that JSON has in seconds.
type Time time.Duration

// MarshalJSON writes seconds.
func (t Time) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.9g", time.Duration(t).Seconds()), nil
}

// Layout is one way to divide workers among pods.
type Layout struct {
	Pods    int `json:"pods"`
	Workers int `json:"workers_per_pod"`

	Copies  uint64 `json:"memory_with_copies_bytes"` // each worker with its own weights, at the peak of a reload
	OneCopy uint64 `json:"memory_with_one_copy_bytes"`
	Needs   uint64 `json:"memory_bytes"` // the one that applies
	Fits    bool   `json:"fits"`
	Short   uint64 `json:"short_bytes,omitempty"` // by how much it does not

	Rate     float64 `json:"requests_per_second"` // at the target
	Left     float64 `json:"requests_per_second_without_one_pod"`
	Overhead uint64  `json:"overhead_bytes"` // beside one pod with as many workers
	Cost     float64 `json:"cost_per_million,omitempty"`
}

// Report is a plan.
type Report struct {
	Input   Input    `json:"input"`
	Room    uint64   `json:"memory_for_workers_bytes"` // of Memory: a quarter is left to the kernel and everything else
	Wanted  int      `json:"workers_for_the_cores"`
	Layouts []Layout `json:"layouts"`               // of so many workers
	Reduced []Layout `json:"reduced,omitempty"`     // of fewer, where none of Layouts fits
	Best    *Layout  `json:"recommended,omitempty"` // nil: nothing fits
	Reason  string   `json:"reason"`
	Pods    *Pods    `json:"pods,omitempty"` // for the wanted rate
	Worker  Worker   `json:"worker"`
	Bend    *Bend    `json:"bend,omitempty"` // of Steps
	Step    Stage    `json:"strategy"`
}

// Worker is how one is bounded.
type Worker struct {
	Procs      int    `json:"gomaxprocs"`
	GoMemory   uint64 `json:"gomemlimit_bytes"`
	QueueBytes uint64 `json:"queue_bytes_at_most"`
	Threads    int    `json:"blocking_calls"`
}

// Make returns the plan for in.
func Make(in Input) Report {
	if in.CPU == 0 {
		in.CPU = in.Latency
	}
	r := Report{Input: in, Room: sizing.Room(in.Memory)}
	r.Wanted = sizing.Decide(sizing.Input{Cores: in.Cores}).Workers
	r.Layouts = in.layouts(r.Wanted)
	candidates := r.Layouts
	for n := r.Wanted - 1; n > 0 && !anyFits(candidates); n-- {
		candidates = in.layouts(n)
	}
	if anyFits(candidates) {
		if !anyFits(r.Layouts) {
			r.Reduced = candidates
		}
		r.Best, r.Reason = in.choose(candidates)
		r.Worker = in.worker(*r.Best)
		r.Pods = in.pods(*r.Best)
	} else {
		one := in.layouts(1)[0]
		r.Reason = fmt.Sprintf("not even one worker fits: with its pod and a reload it needs %s, and %s of %s are for it",
			sizing.Size(one.Needs), sizing.Size(r.Room), sizing.Size(in.Memory))
	}
	r.Bend = bend(in.Steps)
	r.Step = in.stage(r)
	return r
}

// need is the memory of workers with one copy of the weights, or a copy each.
func (in Input) need(shared bool) sizing.Need {
	if shared {
		return sizing.Need{Private: in.Own, Shared: in.Common + in.Weights}
	}
	return sizing.Need{Private: in.Own + in.Weights, Shared: in.Common}
}

// peak is the most that a layout uses: each pod reloads by itself.
func (in Input) peak(pods, workers int, shared bool) uint64 {
	return uint64(pods) * (in.Pod + in.need(shared).Peak(workers, 1))
}

// layouts returns all ways to divide workers evenly among pods.
func (in Input) layouts(workers int) (all []Layout) {
	room := sizing.Room(in.Memory)
	for pods := 1; pods <= workers; pods++ {
		// A prime number divides into nothing but pods of one worker: two pods that have a
		// worker more together stand beside them.
		odd := pods == 2 && workers > 3 && prime(workers)
		if workers%pods != 0 && !odd {
			continue
		}
		l := Layout{Pods: pods, Workers: (workers + pods - 1) / pods}
		l.Copies, l.OneCopy = in.peak(pods, l.Workers, false), in.peak(pods, l.Workers, true)
		l.Needs = in.peak(pods, l.Workers, in.Shared)
		l.Overhead = l.Needs - in.peak(1, pods*l.Workers, in.Shared)
		if l.Fits = l.Needs <= room; !l.Fits {
			l.Short = l.Needs - room
		}
		one := in.podRate(l.Workers, in.Cores/float64(pods))
		l.Rate, l.Left = one*float64(pods), one*float64(pods-1)
		if in.Price > 0 && l.Rate > 0 {
			l.Cost = in.Cores * in.Price / 3600 / l.Rate * 1e6
		}
		all = append(all, l)
	}
	return all
}

// podRate is how many requests a second one pod carries at the target. More workers than cores
// share them: what a request computes takes longer.
func (in Input) podRate(workers int, cores float64) float64 {
	crowd := max(1, float64(workers)*in.CPU.seconds()/max(in.Latency.seconds(), 1e-9)/cores)
	service := in.Latency.seconds() + in.CPU.seconds()*(crowd-1)
	return queue{workers, time.Duration(service * 1e9)}.rate(time.Duration(in.Target))
}

func (t Time) seconds() float64 { return time.Duration(t).Seconds() }

func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

func anyFits(all []Layout) bool {
	for _, l := range all {
		if l.Fits {
			return true
		}
	}
	return false
}

// choose returns the layout to take, and why. One fits.
func (in Input) choose(all []Layout) (*Layout, string) {
	var fit []Layout
	for _, l := range all {
		if l.Fits {
			fit = append(fit, l)
		}
	}
	if in.Rate > 0 {
		for _, l := range fit { // fewest pods first
			if l.Left >= in.Rate {
				return &l, fmt.Sprintf("the fewest pods that carry %s requests/s also when one of them has died", number(in.Rate))
			}
		}
		for _, l := range fit {
			if l.Rate >= in.Rate && l.Pods > 1 {
				return &l, fmt.Sprintf("it carries %s requests/s, and %s of them when a pod has died; no layout of this machine carries all of them then", number(in.Rate), number(l.Left))
			}
		}
	}
	for _, l := range fit {
		if l.Pods > 1 && l.Workers > 1 {
			return &l, "the fewest pods of which one may die: workers behind one queue carry more, and need less memory, than the same number behind several"
		}
	}
	l := fit[0]
	switch {
	case l.Workers == 1:
		return &l, "one worker is all that fits: its death is an outage until the next one is ready"
	case len(fit) > 1:
		return &l, "pods of one worker each would carry less and need more; for a pod that may die, run this one on two machines"
	}
	return &l, "no layout of several pods fits: the pod's death is an outage, a worker's is not"
}

// worker is how a worker of l is bounded by the service, in a pod of its share of the machine.
func (in Input) worker(l Layout) Worker {
	n := in.need(in.Shared)
	p := sizing.Decide(sizing.Input{
		Cores: in.Cores / float64(l.Pods), Available: in.Memory / uint64(l.Pods), Private: n.Private, Shared: n.Shared, Asked: l.Workers,
	})
	return Worker{Procs: p.Procs, GoMemory: p.GoMemory, QueueBytes: p.QueueBytes, Threads: p.Threads}
}

// Pods is how many of Best's pods carry the wanted rate.
type Pods struct {
	Each  float64 `json:"requests_per_second_each"`
	Least int     `json:"least"` // 0: no number does
	Safe  int     `json:"with_one_to_spare"`
	Cores float64 `json:"cores"` // of Safe
	Bytes uint64  `json:"memory_bytes"`
	Cost  float64 `json:"cost_per_million,omitempty"`
}

func (in Input) pods(l Layout) *Pods {
	if in.Rate <= 0 {
		return nil
	}
	p := &Pods{Each: l.Rate / float64(l.Pods)}
	if p.Each <= 0 {
		return p
	}
	p.Least = int(math.Ceil(min(in.Rate/p.Each, 1e6)))
	p.Safe = p.Least + 1
	p.Cores = in.podCores(l) * float64(p.Safe)
	p.Bytes = in.limit(l) * uint64(p.Safe)
	if in.Price > 0 {
		p.Cost = p.Cores * in.Price / 3600 / in.Rate * 1e6
	}
	return p
}

// podCores is a pod's share of the machine, as far as its workers can use it.
func (in Input) podCores(l Layout) float64 {
	return min(in.Cores/float64(l.Pods), float64(l.Workers))
}

// limit is the memory limit of one pod: what it needs at most is three quarters of it, as the
// service plans, in whole MiB.
func (in Input) limit(l Layout) uint64 {
	const mib = 1 << 20
	need := l.Needs / uint64(l.Pods)
	limit := (need*4/3 + mib) / mib * mib
	for sizing.Room(limit) < need {
		limit += mib
	}
	return limit
}

// A process that prepares a model has taken so many times its weights, as quarters, and so much
// beside them: 190 MB for 67 MB of weights, 1,170 MB for 504 MB.
const (
	preparerQuarters = 9
	preparerBytes    = 48 << 20
)

// preparing is what one pod takes while a reload prepares other weights beside its workers, or 0
// where that is within the pod's limit, or where nothing is prepared.
func (in Input) preparing(l Layout) uint64 {
	if !in.Shared {
		return 0
	}
	takes := in.Pod + in.need(true).Of(l.Workers) + in.Weights*preparerQuarters/4 + preparerBytes
	if takes <= in.limit(l) {
		return 0
	}
	return takes
}
