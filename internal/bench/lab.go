package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"preforkd/internal/ipc"
)

// each is how long a request of the experiments waits, or uses a core: as in the tutorial.
const each = 100 * time.Millisecond

// long is how long a task has of a core where it is about who has it when: some hundred turns of
// the kernel's.
const long = 3 * each

// LabOptions say what to measure.
type LabOptions struct {
	Preforkd string   // path of the program
	Version  string   // for the report
	Beside   string   // what is measured, too: fastapi; empty: nothing
	Python   string   // that runs it; empty: the first that is found to have it
	Only     []string // names of experiments; empty: all
	Env      []string // of the services, as os.Environ returns it
	Progress func(text string)
}

// Report is what was measured.
type Report struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	Cores   int       `json:"cores"`            // that this process may use
	Workers int       `json:"workers"`          // where there are several
	Beside  string    `json:"beside,omitempty"` // what was measured, too, with its versions
	Rows    []Row     `json:"rows"`
}

// Row is one experiment.
type Row struct {
	Name  string  `json:"name"`
	Title string  `json:"title"`
	Model string  `json:"model"` // of execution
	Tasks int     `json:"tasks"`
	Each  float64 `json:"each_seconds"` // of one task: what it waits, or has of a core; 0: a model's
	// Tutorial is the tutorial's own figure; 0: it has none. Wrong says why that cannot be.
	Tutorial float64  `json:"tutorial_seconds,omitempty"`
	Wrong    string   `json:"tutorial_wrong,omitempty"`
	Expected string   `json:"expected"`
	Here     Outcome  `json:"here"`
	Beside   *Outcome `json:"beside,omitempty"`
	Sentence string   `json:"sentence"`
}

// Outcome is how an experiment went.
type Outcome struct {
	Seconds   float64 `json:"seconds"`        // to the last answer
	First     float64 `json:"first_seconds"`  // to the first
	Mean      float64 `json:"mean_seconds"`   // of an answer
	Alone     float64 `json:"alone_seconds"`  // of one request, alone, before
	Health    float64 `json:"health_seconds"` // longest answer of /healthz meanwhile
	Relation  string  `json:"relation"`
	Wanted    string  `json:"expected"`
	OK        bool    `json:"as_expected"`
	Attempts  int     `json:"attempts"`                // until it was, or no more
	Processes int     `json:"processes"`               // that answered
	Cores     float64 `json:"cores_at_once,omitempty"` // that the tasks had, while any had one, on average
	Bars      []Bar   `json:"bars"`                    // of the answers, by when they began to be worked on
}

// Bar is one answer, in seconds since the first request was sent.
type Bar struct {
	Sent  float64      `json:"sent"`
	Began float64      `json:"began"` // by the server
	Ended float64      `json:"ended"`
	Core  [][2]float64 `json:"core,omitempty"` // when it was on a core
}

// Lab measures the experiments. The caller keeps its thread, with which the services end.
func Lab(ctx context.Context, o LabOptions) (*Report, error) {
	cores := runtime.GOMAXPROCS(0) // which knows affinity and quota
	r := &Report{Time: time.Now(), Version: o.Version, Cores: cores, Workers: max(2, min(cores, mostWorkers))}
	l := &lab{LabOptions: o, report: r, running: map[shape]*service{}, others: map[shape]*service{}}
	l.servers = [2]server{ours{o.Preforkd, o.Env}}
	switch o.Beside {
	case "":
	case "fastapi":
		f, version, err := findFastAPI(ctx, o.Python, o.Env)
		if err != nil {
			return nil, err
		}
		l.servers[1], r.Beside = f, version
	default:
		return nil, &ipc.Failure{Exit: ipc.ExitUsage, What: "--beside " + o.Beside + " is nothing that can be measured", Try: "--beside fastapi"}
	}
	list, err := chosen(experiments(r.Workers, cores), o.Only)
	if err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp("", "preforkd-lab-"); err != nil {
		return nil, fmt.Errorf("make a directory for the services: %w", err)
	}
	defer os.RemoveAll(l.dir)
	defer l.stop()
	for i := range list {
		row, err := l.measure(ctx, &list[i])
		if err != nil {
			return nil, fmt.Errorf("experiment %s: %w", list[i].name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	for i := range r.Rows {
		r.Rows[i].Sentence = list[i].say(r, &r.Rows[i])
		if here := &r.Rows[i].Here; !here.OK {
			r.Rows[i].Sentence = fmt.Sprintf("Not this time: it was %s in %d attempts. What was to be shown: %s", here.Relation, here.Attempts, r.Rows[i].Sentence)
		}
	}
	return r, nil
}

// mostWorkers bounds how many processes are started, whatever the machine has.
const mostWorkers = 4

// chosen are those of list with such names.
func chosen(list []experiment, names []string) ([]experiment, error) {
	if len(names) == 0 {
		return list, nil
	}
	var some []experiment
	for _, name := range names {
		i := slices.IndexFunc(list, func(e experiment) bool { return e.name == name })
		if i < 0 {
			var known []string
			for _, e := range list {
				known = append(known, e.name)
			}
			return nil, &ipc.Failure{Exit: ipc.ExitUsage, What: "--only " + name + " is no experiment", Try: "one of " + strings.Join(known, ", ")}
		}
		some = append(some, list[i])
	}
	return some, nil
}

// lab is what runs.
type lab struct {
	LabOptions
	report          *Report
	dir             string
	servers         [2]server
	running, others map[shape]*service // by server
}

// stop ends all services.
func (l *lab) stop() {
	for _, of := range []map[shape]*service{l.running, l.others} {
		for s, v := range of {
			v.stop()
			delete(of, s)
		}
	}
}

// on returns the service of that shape, which it starts if there is none: those of other shapes end,
// so that nothing but the experiment runs.
func (l *lab) on(ctx context.Context, which int, s shape) (*service, error) {
	of := []map[shape]*service{l.running, l.others}[which]
	if v := of[s]; v != nil {
		return v, nil
	}
	for other, v := range of {
		v.stop()
		delete(of, other)
	}
	dir, err := os.MkdirTemp(l.dir, "service-")
	if err != nil {
		return nil, err
	}
	v, err := l.servers[which].start(ctx, dir, s)
	if err != nil {
		return nil, err
	}
	of[s] = v
	return v, nil
}

// attempts is how often an experiment is made that did not show what it shall: the machine may
// have been busy with something else. The last attempt counts.
const attempts = 3

// measure makes one experiment, here and beside.
func (l *lab) measure(ctx context.Context, e *experiment) (Row, error) {
	row := Row{
		Name: e.name, Title: e.title, Model: e.model, Tasks: e.tasks, Each: cmp.Or(e.each, each).Seconds(),
		Tutorial: e.tutorial, Wrong: e.wrong, Expected: e.here.want.String(),
	}
	if e.here.body != "" {
		row.Each = 0
	}
	l.Progress(e.title)
	out, err := l.attempt(ctx, 0, e, &e.here)
	if err != nil {
		return row, err
	}
	row.Here = *out
	if l.servers[1] != nil && e.beside != nil {
		if row.Beside, err = l.attempt(ctx, 1, e, e.beside); err != nil {
			return row, fmt.Errorf("%s: %w", l.Beside, err)
		}
	}
	return row, nil
}

func (l *lab) attempt(ctx context.Context, which int, e *experiment, t *trial) (out *Outcome, err error) {
	v, err := l.on(ctx, which, t.on)
	if err != nil {
		return nil, err
	}
	for n := range attempts {
		if out, err = try(ctx, v, e.tasks, t); err != nil {
			return nil, err
		}
		if out.Attempts = n + 1; out.OK {
			break
		}
	}
	return out, nil
}

// request is t's request.
func (t *trial) request() []byte {
	if t.body == "" {
		return []byte("GET " + t.path + " HTTP/1.1\r\nHost: lab\r\n\r\n")
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", t.path, len(t.body), t.body)
}

// address is where a service listens, for package load.
func (s *service) address() string { return "unix:" + filepath.Clean(s.socket) }
