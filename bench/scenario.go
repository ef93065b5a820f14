package main

import "context"

// scenario is one question that the benchmarks answer.
type scenario struct {
	name  string // of --only and of the files in bench/out
	about string
	apart bool // only when it is named: it takes minutes
	run   func(context.Context, *lab) (*result, error)
}

// scenarios are all there are, in the order in which they run.
var scenarios []scenario

func init() { // not a literal: runners print the names of all
	scenarios = []scenario{
		{"serve", "throughput, latency and CPU time of POST /predict, against peers", false, serve},
		{"start", "from start to ready, and the supervisor's memory", false, start},
		{"allocs", "allocations of one request", false, allocs},
		{"reload-busy", "many reloads under busy clients, and under many connections: who notices", true, reloadBusy},
		{"reload-slow", "a reload into a version that boots 6 s; draws the picture", true, reloadSlow},
		{"reload-bad", "reloads into versions that do not work", true, reloadBad},
		{"reload-tail", "p99 during reloads, at half the capacity", true, reloadTail},
		{"operate-scale", "scale 8 → 2 → 8 for a minute under busy clients: who notices", true, operateScale},
		{"operate-recycle", "workers replaced every 200 requests for a minute under busy clients: who notices", true, operateRecycle},
		{"operate-death", "a model that dies on one request: deaths until its quarantine, and who notices", true, operateDeath},
		{"operate-rollback", "time of a rollback against that of a reload", true, operateRollback},
		{"operate-others", "uvicorn and node under preforkd, and under gunicorn and pm2: who notices reloads", true, operateOthers},
		{"upgrade", "upgrades, bad programs and deaths of the supervisor under load: who notices", true, upgradeAll},
		{"inference", "what inference costs in binary form and in JSON, of digits, an image and a quantised model", true, inferences},
		{"overload-batch", "what joining requests gains a model that is bound by its weights, and costs one that is not", true, overloadBatch},
		{"overload-goodput", "twice the capacity from 4,096 clients that give up after a second: how many get an answer", true, overloadGoodput},
		{"overload-bystander", "slow, large, broken and huge requests: does somebody who asks for /healthz notice", true, overloadBystander},
		{"balance", "does a request wait only while every worker is busy: closed loops against one queue, against a line in each worker, and against peers", true, balance},
		{"balance-mixed", "do short requests wait behind long ones of a worker while another is free", true, balanceMixed},
		{"balance-waits", "5,000 waits at once in one worker: time and memory", true, balanceWaits},
		{"memory-workers", "memory of 1 to 8 workers of 504 MB of weights, before and after a reload, against peers", true, memoryWorkers},
		{"memory-latency", "latency with one copy of the weights and with copies", true, memoryLatency},
		{"memory-reload", "the most that a reload to changed weights takes, against peers", true, memoryReload},
		{"memory-start", "from start to ready with 8 workers and a warm cache, against peers", true, memoryStart},
		{"io-proxy", "5,000 requests at once to a route whose service takes a second, and /healthz beside them", true, ioProxy},
		{"io-features", "a model whose row is in Redis, against a round trip and a direct call", true, ioFeatures},
		{"helpers-image", "a picture through Python helpers and a model, and the same work in FastAPI", true, helpersImage},
		{"helpers-hop", "CPU time of the hop to a helper, beyond the helper's own", true, helpersHop},
		{"tasks-accept", "background tasks that are accepted in a second, beside plain queues on the same disk", true, tasksAccept},
		{"tasks-latency", "how soon a background task begins on an idle service", true, tasksLatency},
		{"tasks-through", "the same work directly and through background tasks", true, tasksThrough},
		{"tasks-beside", "what requests notice of a full queue of background tasks", true, tasksBeside},
		{"tasks-broker", "memory of the broker, and its way back with 100,000 tasks", true, tasksBroker},
		{"overhead", "what the accept wrapper and the scoreboard cost", true, overhead},
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
