package plan

import (
	"fmt"
	"time"
)

// The layers of a service on which a model can run.
const (
	LayerDirect  = "direct"
	LayerWorkers = "workers"
	LayerTasks   = "tasks"
)

// Layer returns the layer for a model that takes so long: up to 50 ms within the request,
// whichever worker has it; up to 1 s in workers, as many as there are cores; beyond that in the
// background, its result fetched later.
func Layer(latency time.Duration) string {
	switch {
	case latency > time.Second:
		return LayerTasks
	case latency > 50*time.Millisecond:
		return LayerWorkers
	}
	return LayerDirect
}

// layerWhy says what a layer means.
func layerWhy(layer string) string {
	switch layer {
	case LayerTasks:
		return "over 1 s: answer at once, compute in the background, let the result be fetched"
	case LayerWorkers:
		return "over 50 ms: as many workers as cores, and a bounded queue"
	}
	return "under 50 ms: within the request"
}

// Step is what one load test found.
type Step struct {
	Workers int     `json:"workers"`
	Rate    float64 `json:"requests_per_second"`
	P99     Time    `json:"p99_seconds"`
	PSS     uint64  `json:"pss_bytes"` // of all workers
}

// Bend is where one more worker stops being worth it.
type Bend struct {
	Workers int    `json:"workers"`
	Why     string `json:"why"`
}

// bend finds the last of steps, of 1, 2, … workers, before one brings less than half of what the
// first one does.
func bend(steps []Step) *Bend {
	if len(steps) == 0 {
		return nil
	}
	first := steps[0].Rate / float64(max(steps[0].Workers, 1))
	for i := 1; i < len(steps); i++ {
		more := steps[i].Rate - steps[i-1].Rate
		if added := steps[i].Workers - steps[i-1].Workers; more < first/2*float64(added) {
			brings := number(more)
			if more <= 0 {
				brings = "no more"
			}
			return &Bend{steps[i-1].Workers, fmt.Sprintf("worker %d brings %s requests/s, the first one %s", steps[i].Workers, brings, number(first))}
		}
	}
	return &Bend{steps[len(steps)-1].Workers, "each worker still brings at least half of what the first one does: the line has not bent yet"}
}

// Stage is a step of the scaling strategy: measure one worker, fill the machine, add machines,
// make the model faster.
type Stage struct {
	Now  int    `json:"step"`
	At   string `json:"at"`
	Next string `json:"next"`
}

// stage says where r leaves the service.
func (in Input) stage(r Report) Stage {
	at := func(now int, why string) Stage {
		names := []string{"", "one worker: the baseline", "vertical: as many workers as cores", "horizontal: more pods", "optimise the model"}
		return Stage{now, names[now] + ": " + why, next(now)}
	}
	most := 0.0
	if r.Best != nil {
		most = r.Best.Rate
	}
	switch {
	case in.Latency > in.Target:
		return at(4, "one inference alone takes longer than the p99 that is wanted, which no number of workers changes")
	case r.Best == nil:
		return at(1, "nothing beyond it fits into this machine")
	case in.Rate > most && r.Pods != nil && r.Pods.Safe > 10:
		return at(4, fmt.Sprintf("%d pods would carry the wanted rate: a faster model costs less", r.Pods.Safe))
	case in.Rate > most:
		return at(3, "the wanted rate is more than this machine carries")
	case in.Source == "given" || len(in.Steps) == 0:
		return at(1, "what a worker does is known, what several do together is computed, not measured")
	}
	return at(2, "measured under load, and the machine carries what is wanted")
}

func next(step int) string {
	switch step {
	case 1:
		return "2, as many workers as cores: run preforkd plan --verify on the machine that will serve"
	case 2:
		return "3, more pods, once their CPUs are full: scale on CPU or on the depth of the queue, not on memory, which does not change with load"
	case 3:
		return "4, a faster model: quantisation, batches (max_batch_size), another engine or a GPU"
	}
	return "1, the baseline of the model that comes out of it"
}

// Capacity is the product of the layers: pods, workers, and what each worker does at once.
type Capacity struct {
	Pods         int `json:"pods"`
	Workers      int `json:"workers"`
	WaitsEach    int `json:"waits_per_worker"`
	Waits        int `json:"waits"`
	Computations int `json:"computations"`
}

// WaitsEach is how many requests a worker lets wait for something else than a core, unless
// another number is given.
const WaitsEach = 1000

// CapacityOf multiplies.
func CapacityOf(pods, workers, waits int) Capacity {
	return Capacity{pods, workers, waits, pods * workers * waits, pods * workers}
}
