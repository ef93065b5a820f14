package bench

import (
	"fmt"
	"strings"
	"time"
)

// experiment is a number of equal requests, here and beside.
type experiment struct {
	name, title, model string
	tasks              int
	each               time.Duration // 0: as most
	tutorial           float64       // seconds
	wrong              string        // why that cannot be
	here               trial
	beside             *trial // nil: there is nothing like it
	say                func(*Report, *Row) string
}

// trial is what is asked of which service, and what shall come of it.
type trial struct {
	on   shape
	path string
	body string // empty: a GET
	want expectation
}

// manyTasks is how many requests the tutorial sends, wavesOf what the waves take: as many as fill
// a pool of 40 two and a half times.
const (
	manyTasks = 10
	wavesOf   = 100
	waves     = 3
)

// experiments are all of them, with n processes where there are several, on that many cores.
func experiments(n, cores int) []experiment {
	one, many, wide := shape{1, 1}, shape{n, 1}, shape{1, n}
	waits := func(on shape, path string, r Relation) trial {
		return trial{on: on, path: path, want: expectation{Relation: r}}
	}
	side := func(on shape, path string, r Relation) *trial { t := waits(on, path, r); return &t }
	list := tutorials(one, waits, side)
	list = append(list, experiment{
		name: "wait-sync", title: "a wait declared sync", model: "sync, pool of 40", tasks: manyTasks,
		here: waits(one, "/lab/wait-sync", Concurrent), say: fixed("A wait on the pool holds one of its 40 places and nothing else: ten at once are no more than one."),
	}, experiment{
		name: "wait-compute", title: "a wait wrongly declared compute", model: "compute, 1 permit", tasks: manyTasks,
		here: waits(one, "/lab/wait-compute", Sequential), say: fixed("It holds the permit while it only waits, so that the next cannot begin: the honest twin of the frozen loop, and the log names the route."),
	}, experiment{
		name: "waves", title: "100 blocking calls on a pool of 40", model: "sync, pool of 40", tasks: wavesOf,
		here:   trial{on: one, path: "/lab/call-sync", want: expectation{Waves, waves}},
		beside: &trial{on: one, path: "/lab/call-sync", want: expectation{Waves, waves}},
		say:    fixed("40, 40 and 20: three waves; layers.sync.pool is how many at once, and beyond layers.sync.max requests are refused."),
	}, experiment{
		name: "cpu-async", title: "CPU declared async", model: "async, no permit", tasks: manyTasks,
		here: waits(one, "/lab/cpu-async", Interleaved), beside: side(one, "/lab/cpu-async", Sequential), say: sayUnbounded,
	}, experiment{
		name: "cpu-compute", title: "CPU declared compute", model: "compute, 1 permit", tasks: manyTasks,
		here: waits(one, "/lab/cpu-compute", Sequential), beside: side(one, "/lab/cpu-sync", Interleaved), say: sayBounded,
	}, experiment{
		name: "one-core", title: "two CPU tasks in one worker on one core", model: "async, 1 core", tasks: 2, each: long,
		here: waits(one, "/lab/work-async", Interleaved), beside: side(one, "/lab/work-sync", Interleaved),
		say: fixed("Concurrency without parallelism: one core has both by turns, and both are answered late."),
	}, experiment{
		name: "two-workers", title: "two CPU tasks on two workers", model: "compute, 2 processes", tasks: 2, each: long,
		here: waits(shape{2, 1}, "/lab/work-compute", parallelOn(cores, 2)), beside: side(shape{2, 1}, "/lab/work-sync", parallelOn(cores, 2)),
		say: fixed("Parallelism: two cores at the same instant" + onFew(cores < 2) + "."),
	})
	list = append(list, lockTable(n, one, many, wide, parallelOn(cores, n), waits, side)...)
	return append(list, experiment{
		name: "heavy", title: "a heavy model, asked directly", model: "compute, 1 permit", tasks: 4,
		here: trial{on: one, path: "/v2/models/heavy/infer", body: heavyRequest(), want: expectation{Relation: Sequential}}, say: sayHeavy,
	})
}

// parallelOn is what so many tasks are that as many processes have. On fewer cores nothing is
// parallel, however many processes there are.
func parallelOn(cores, tasks int) Relation {
	if cores < tasks {
		return Interleaved
	}
	return Parallel
}

func onFew(few bool) string {
	if few {
		return ", of which this machine has too few: they take turns"
	}
	return ""
}

// tutorials are the tutorial's own experiments.
func tutorials(one shape, waits func(shape, string, Relation) trial, side func(shape, string, Relation) *trial) []experiment {
	return []experiment{{
		name: "call-async", title: "a blocking call, declared async", model: "async", tasks: manyTasks, tutorial: 1.1,
		here: waits(one, "/lab/call-async", Concurrent), beside: side(one, "/lab/call-async", Sequential), say: sayBlocked,
	}, {
		name: "wait-async", title: "a wait declared async", model: "async", tasks: manyTasks, tutorial: 0.03,
		wrong: "a request that waits for 0.1 s is not answered in 0.03 s",
		here:  waits(one, "/lab/wait-async", Concurrent), beside: side(one, "/lab/wait-async", Concurrent),
		say: fixed("Ten waits are no longer than one: 0.1 s is the bound, and the tutorial's 0.03 s cannot be."),
	}, {
		name: "call-sync", title: "a blocking call, declared sync", model: "sync, pool of 40", tasks: manyTasks, tutorial: 0.12,
		here: waits(one, "/lab/call-sync", Concurrent), beside: side(one, "/lab/call-sync", Concurrent),
		say: fixed("Ten of 40 places: each call blocks a thread of its own."),
	}}
}

// lockTable is the tutorial's table of what threads and processes do for work and for waits.
func lockTable(n int, one, many, wide shape, parallel Relation, waits func(shape, string, Relation) trial, side func(shape, string, Relation) *trial) []experiment {
	processes := fmt.Sprintf("%d processes", n)
	return []experiment{{
		name: "lock-cpu-one", title: "CPU, one process", model: fmt.Sprintf("async, %d cores", n), tasks: n, each: long,
		here: waits(wide, "/lab/work-async", parallel), beside: side(one, "/lab/work-sync", Interleaved),
		say: fixed("Go has no interpreter lock: threads of one process use all cores. The tutorial's table says no here, and for Python that is so."),
	}, {
		name: "lock-cpu-many", title: "CPU, " + processes, model: "compute, " + processes, tasks: n, each: long,
		here: waits(many, "/lab/work-compute", parallel), beside: side(many, "/lab/work-sync", parallel),
		say: fixed("Processes are parallel everywhere. Here they are for isolation, accounting and replacement, not for speed."),
	}, {
		name: "lock-io-one", title: "I/O, one process", model: "sync, pool of 40", tasks: n,
		here: waits(one, "/lab/call-sync", Concurrent), beside: side(one, "/lab/call-sync", Concurrent), say: fixed("Who waits for I/O holds no lock, in either language."),
	}, {
		name: "lock-io-many", title: "I/O, " + processes, model: "sync, " + processes, tasks: n,
		here: waits(many, "/lab/call-sync", Concurrent), beside: side(many, "/lab/call-sync", Concurrent), say: fixed("More processes change nothing for a few waits."),
	}}
}

// heavyRequest is a request of the model heavy.
func heavyRequest() string {
	return fmt.Sprintf(`{"inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","data":[%s]}]}`, heavyInputs, strings.TrimSuffix(strings.Repeat("1,", heavyInputs), ","))
}

func fixed(text string) func(*Report, *Row) string { return func(*Report, *Row) string { return text } }

// row returns the row of that name; nil: it was not measured.
func (r *Report) row(name string) *Row {
	for i := range r.Rows {
		if r.Rows[i].Name == name {
			return &r.Rows[i]
		}
	}
	return nil
}

func sayBlocked(_ *Report, row *Row) string {
	text := fmt.Sprintf("In Go nothing freezes: each call blocks a thread, the others go on, and /healthz took %s at most meanwhile", seconds(row.Here.Health))
	if row.Beside != nil {
		text += fmt.Sprintf("; on an event loop one call after the other holds all, /healthz for %s", seconds(row.Beside.Health))
	}
	return text + ". The log names the route all the same: nothing bounds the threads."
}

func sayUnbounded(r *Report, row *Row) string {
	text := fmt.Sprintf("Unbounded: all share the core, and an answer takes %s on average", seconds(row.Here.Mean))
	if b := r.row("cpu-compute"); b != nil {
		text += fmt.Sprintf(", %.1f times as long as the %s under permits", row.Here.Mean/b.Here.Mean, seconds(b.Here.Mean))
	}
	text += fmt.Sprintf("; /healthz took up to %s", seconds(row.Here.Health))
	if row.Beside != nil {
		text += fmt.Sprintf(", with the loop frozen %s", seconds(row.Beside.Health))
	}
	return text + "."
}

func sayBounded(_ *Report, row *Row) string {
	text := fmt.Sprintf("One after the other: the first is answered after %s, all are no later, and /healthz took %s at most", seconds(row.Here.First), seconds(row.Here.Health))
	if row.Beside != nil {
		text += fmt.Sprintf("; threads share the interpreter lock, and /healthz took %s", seconds(row.Beside.Health))
	}
	return text + "."
}

func sayHeavy(_ *Report, row *Row) string {
	kind := "heavy by the tutorial's measure (more than 50 ms): more workers"
	switch {
	case row.Here.Alone > 1:
		kind = "so long that a queue whose results are fetched later is better: clients and proxies give up"
	case row.Here.Alone <= heavySeconds:
		kind = "light on this machine (up to 50 ms): one worker answers in time"
	}
	return fmt.Sprintf("One run takes %s, %s; asked directly, the last of %d waits for all before it, and /healthz took %s at most.",
		seconds(row.Here.Alone), kind, row.Tasks, seconds(row.Here.Health))
}

// heavySeconds is from when on the tutorial calls work heavy.
const heavySeconds = 0.05

func seconds(s float64) string {
	if s < 0.01 {
		return fmt.Sprintf("%.1f ms", s*1000)
	}
	return fmt.Sprintf("%.2f s", s)
}
