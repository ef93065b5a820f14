package metrics

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"preforkd/internal/ipc/scoreboard"
)

// Snapshot is what the supervisor's loop knows beside the scoreboard.
type Snapshot struct {
	Generation uint64 // in charge
	Pools      []Pool
	Recycles   map[string]uint64 // workers that were replaced while they served, by why
	Restarts   map[string]uint64 // workers that were started in place of another, by why that had ended
	Strangers  uint64            // notify messages of processes that are no workers
	Reload     Reload
	RolledBack bool    // to what an earlier generation had
	Models     []Model // of the generation in charge, each name once
	Memory     *Memory // nil: not known
}

// Memory is that of the tightest limit, a cgroup's or the machine's, in bytes, and what has been
// counted there.
type Memory struct {
	Limit, Used, Mapped uint64
	Level               int // 0: calm, 1: tight, 2: critical
	Stalled             time.Duration
	StallKnown          bool
	MajorFaults         uint64
	Kills               uint64
}

// Pool is a number of workers of one kind.
type Pool struct {
	Name   string
	Size   int            // how many it shall have
	States map[string]int // how many processes are in each state; all states are there
	Queued int            // requests in the queue that its workers have in common
	Oldest time.Duration  // how long the first of them has waited; 0: there is none
}

// Model is one model that is served, or would be.
type Model struct {
	Name, Version string
	Quarantined   bool
	Deaths        uint64 // of workers, in the middle of its requests, since it is served with its content
	Weighed       bool   // workers have said what follows
	Private       int64  // bytes that loading it takes of a worker's own
	Shared        int64  // bytes of prepared weights that are present, once for all workers
	Lost          bool   // they should be shared and are not
}

// Reload is how the last reload went; before the first one, how the service started.
type Reload struct {
	OK bool
	At time.Time // of its end
}

// metric is a name with its labels, and what its number is.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

// All metrics. A name, once published, keeps its meaning.
var (
	buildInfo = gauge("preforkd_build_info", "Always 1; the version of the supervisor is the label.", "version")

	generation   = gauge("preforkd_generation", "Number of the generation in charge; each reload has the next one.")
	poolWorkers  = gauge("preforkd_pool_workers", "Workers that a pool shall have.", "pool")
	workers      = gauge("preforkd_workers", "Worker processes by state; during a reload those of both generations.", "pool", "state")
	restarts     = counter("preforkd_worker_restarts_total", "Workers started in place of one that ended, by why that one did. A reload's new workers are none.", "cause")
	recycles     = counter("preforkd_worker_recycles_total", "Workers replaced while they served, by reason: requests, age, memory (the settings recycle.*), pressure (memory was critical), or asked for.", "reason")
	strangers    = counter("preforkd_notify_dropped_total", "Messages to the workers' notify socket that were dropped because their sender is no worker.")
	exits        = counter("preforkd_worker_exits_total", "Worker processes that ended, however and why.")
	reloadOK     = gauge("preforkd_last_reload_success", "1 if the last reload was committed, 0 if it failed. Before the first one, 1: the start.")
	reloadAt     = gauge("preforkd_last_reload_timestamp_seconds", "When the last reload ended, or the service started, as Unix time.")
	rolledBack   = gauge("preforkd_rolled_back", "1 while the service runs what an earlier generation had, after a rollback, and not what its configuration says.")
	quarantined  = gauge("preforkd_model_quarantined", "1 while the model's requests are refused because it ended too many workers.", "model", "version")
	modelDeaths  = counter("preforkd_model_worker_deaths_total", "Workers that ended in the middle of the model's requests, and by its doing.", "model", "version")
	modelMemory  = gauge("preforkd_model_memory_bytes", "What the model's weights take: private, in each worker (the most that one has), and shared, once for all.", "model", "version", "kind")
	modelLost    = gauge("preforkd_model_sharing_lost", "1 while the model was prepared for workers to share its weights, and a worker has a copy of its own all the same.", "model", "version")
	workerMemory = gauge("preforkd_workers_memory_bytes", "Resident memory of all our workers together: private, what each has of its own, and shared, their part of files and shared memory. The sum is their PSS.", "kind")
	memoryLimit  = gauge("preforkd_memory_limit_bytes", "What this service may use: by the tightest cgroup, or what the machine has.")
	memoryUsed   = gauge("preforkd_memory_used_bytes", "What is used within that limit, by whomever, but for files that could be read again.")
	memoryMapped = gauge("preforkd_memory_mapped_bytes", "What is mapped of such files within that limit.")
	memoryLevel  = gauge("preforkd_memory_level", "How short memory is: 0 calm, 1 tight (nothing is added), 2 critical (something gives memory back).")
	memoryStall  = counter("preforkd_memory_stalled_seconds_total", "Time in which some process within the limit waited for memory (PSI).")
	memoryFaults = counter("preforkd_memory_major_faults_total", "Pages that had to be read for processes within the limit.")
	memoryKills  = counter("preforkd_memory_oom_kills_total", "Processes of the limiting cgroup that the kernel killed for want of memory.")
	requests     = counter("preforkd_http_requests_total", "Requests that a worker answered, by class of the status.", "code")
	inFlight     = gauge("preforkd_http_requests_in_flight", "Requests that workers are answering.")
	lost         = counter("preforkd_http_requests_lost_total", "Requests that ended unanswered with their worker.")
	refusals     = counter("preforkd_requests_refused_total", "Requests refused instead of waiting, by reason: too many wait (full), those who wait take too long (slow), later than the client wants (late).", "reason")
	expiries     = counter("preforkd_requests_expired_total", "Requests whose time was over while they were waiting or running.", "state")
	forsaken     = counter("preforkd_requests_abandoned_total", "Requests whose client went while they were waiting or running; what waits is then not run.", "state")
	concurrency  = gauge("preforkd_concurrency_limit", "Requests that all workers together may read and run at once.")
	inUse        = gauge("preforkd_concurrency_in_use", "Requests that they read and run.")
	queueDepth   = gauge("preforkd_queue_depth", "Requests that wait to be run, wherever they do.")
	queueOldest  = gauge("preforkd_queue_oldest_seconds", "How long the first request in the queue of a pool has waited; 0: there is none.", "pool")
	queued       = counter("preforkd_requests_queued_total", "Requests that were put into the queue that a pool's workers have in common.")
	unqueued     = counter("preforkd_requests_queue_full_total", "Requests for which that queue had no room: they waited in their worker.")
	layerNow     = gauge("preforkd_layer_requests", "Requests by layer (async, sync, compute) that are running, or waiting for a place. Inference is on compute.", "layer", "state")
	layerRefused = counter("preforkd_layer_requests_refused_total", "Requests refused because their layer had as many as it may, or would have kept them for too long.", "layer")
	helped       = counter("preforkd_helper_requests_total", "Requests of workers to the helpers of a pool: answered (ok), or not, or with a status of 500 or more (failed).", "pool", "outcome")
	helpedTime   = counter("preforkd_helper_seconds_total", "Time that the requests to the helpers of a pool took together.", "pool")
	connections  = gauge("preforkd_connections", "Clients' connections that workers hold: between two requests (idle) or not (active).", "state")
	handedOver   = counter("preforkd_connections_handed_over_total", "Connections that a worker gave to another.")
	adopted      = counter("preforkd_connections_adopted_total", "Connections that a worker took from another.")
	notTaken     = counter("preforkd_connections_handoff_refused_total", "Connections that a worker wanted to give away and that nobody took; it kept them.")
	engineCalls  = counter("preforkd_engine_calls_total", "Calls into the inference engine.")
	engineTime   = counter("preforkd_engine_seconds_total", "Time inside the inference engine.")
	durationDesc = prometheus.NewDesc("preforkd_http_request_duration_seconds", "Time from a request's being read to its answer.", nil, nil)

	plain = []metric{
		buildInfo, generation, poolWorkers, workers, restarts, recycles, strangers, exits, reloadOK, reloadAt, rolledBack, quarantined, modelDeaths, requests, inFlight, lost,
		modelMemory, modelLost, workerMemory, memoryLimit, memoryUsed, memoryMapped, memoryLevel, memoryStall, memoryFaults, memoryKills,
		refusals, expiries, forsaken, concurrency, inUse, queueDepth, queueOldest, queued, unqueued, layerNow, layerRefused, helped, helpedTime, connections, handedOver, adopted, notTaken, engineCalls, engineTime,
	}
)

// askLimit is how long the loop may take to answer.
const askLimit = 2 * time.Second

// collector reads everything anew for each scrape.
type collector struct {
	version string
	board   *scoreboard.Board
	ask     func(context.Context) (Snapshot, error)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range plain {
		out <- m.desc
	}
	for _, m := range taskMetrics {
		out <- m.desc
	}
	out <- durationDesc
}

// Collect implements prometheus.Collector. Where the loop does not answer, its metrics
// are missing, and the rest is there.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	put := func(m metric, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
	put(buildInfo, 1, c.version)
	c.fromBoard(put)
	fromQueue(c.board.Queue(), put)
	out <- histogram{durationDesc, c.board.Latencies()}

	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	s, err := c.ask(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(generation.desc, fmt.Errorf("ask the supervisor: %w", err))
		return
	}
	put(generation, float64(s.Generation))
	waiting, computing := c.board.Gauges().Waiting, c.board.LayerStates()[scoreboard.LayerCompute].Waiting
	for _, p := range s.Pools {
		waiting += int64(p.Queued)
		computing += int64(p.Queued)
		put(queueOldest, p.Oldest.Seconds(), p.Name)
		put(poolWorkers, float64(p.Size), p.Name)
		for _, state := range slices.Sorted(maps.Keys(p.States)) {
			put(workers, float64(p.States[state]), p.Name, state)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Recycles)) {
		put(recycles, float64(s.Recycles[reason]), reason)
	}
	for _, cause := range slices.Sorted(maps.Keys(s.Restarts)) {
		put(restarts, float64(s.Restarts[cause]), cause)
	}
	for _, m := range s.Models {
		put(quarantined, truth(m.Quarantined), m.Name, m.Version)
		put(modelDeaths, float64(m.Deaths), m.Name, m.Version)
		if m.Weighed {
			put(modelMemory, float64(m.Private), m.Name, m.Version, "private")
			put(modelMemory, float64(m.Shared), m.Name, m.Version, "shared")
			put(modelLost, truth(m.Lost), m.Name, m.Version)
		}
	}
	if m := s.Memory; m != nil {
		put(memoryLimit, float64(m.Limit))
		put(memoryUsed, float64(m.Used))
		put(memoryMapped, float64(m.Mapped))
		put(memoryLevel, float64(m.Level))
		if m.StallKnown {
			put(memoryStall, m.Stalled.Seconds())
		}
		put(memoryFaults, float64(m.MajorFaults))
		put(memoryKills, float64(m.Kills))
	}
	put(queueDepth, float64(waiting))
	put(layerNow, float64(computing), scoreboard.LayerNames[scoreboard.LayerCompute], "waiting")
	put(strangers, float64(s.Strangers))
	put(reloadOK, truth(s.Reload.OK))
	put(rolledBack, truth(s.RolledBack))
	put(reloadAt, float64(s.Reload.At.UnixMilli())/1e3)
}

// truth is 1 or 0.
func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// fromBoard puts the sums over all rows.
func (c *collector) fromBoard(put func(metric, float64, ...string)) {
	sum, now := c.board.Totals(), c.board.Gauges()
	for class, n := range sum.Responses {
		// Workers answer with 2xx, 4xx and 5xx; of the others a handler to come may have some.
		if n > 0 || class == 1 || class >= 3 {
			put(requests, float64(n), fmt.Sprintf("%dxx", class+1))
		}
	}
	memory := c.board.Memory()
	put(workerMemory, float64(memory.Private), "private")
	put(workerMemory, float64(max(memory.PSS-memory.Private, 0)), "shared")
	put(inFlight, float64(now.InFlight))
	put(lost, float64(sum.Lost))
	for i, reason := range [...]string{"full", "slow", "late"} {
		put(refusals, float64(sum.Refused[i]), reason)
	}
	for i, state := range [...]string{"waiting", "running"} {
		put(expiries, float64(sum.Expired[i]), state)
		put(forsaken, float64(sum.Forsaken[i]), state)
	}
	put(concurrency, float64(now.Limit))
	put(inUse, float64(now.InUse))
	put(queued, float64(sum.Queued))
	put(unqueued, float64(sum.Unqueued))
	for i, l := range c.board.LayerStates() {
		put(layerNow, float64(l.Running), scoreboard.LayerNames[i], "running")
		if i != scoreboard.LayerCompute { // whose requests wait before all workers as well
			put(layerNow, float64(l.Waiting), scoreboard.LayerNames[i], "waiting")
		}
		put(layerRefused, float64(l.Refused), scoreboard.LayerNames[i])
	}
	for pool, h := range c.board.Helpers() {
		put(helped, float64(h.Answered), pool, "ok")
		put(helped, float64(h.Failed), pool, "failed")
		put(helpedTime, float64(h.Ns)/1e9, pool)
	}
	put(exits, float64(sum.Exits))
	put(connections, float64(now.Idle), "idle")
	put(connections, float64(max(now.Connections-now.Idle, 0)), "active")
	put(handedOver, float64(sum.HandedOver))
	put(adopted, float64(sum.Adopted))
	put(notTaken, float64(sum.HandoffRefused))
	put(engineCalls, float64(sum.EngineCalls))
	put(engineTime, float64(sum.EngineNs)/1e9)
}
