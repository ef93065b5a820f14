package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	generator "preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/pbtxt"
	"preforkd/internal/supervisor/plan"
	"preforkd/internal/supervisor/sizing"
)

// How long each model is asked, and each number of workers is put under load; the kernel counts
// CPU time in hundredths of a second.
const (
	askWarm, askFor       = 300 * time.Millisecond, 1500 * time.Millisecond
	verifyWarm, verifyFor = time.Second, 3 * time.Second
	clientsPerWorker      = 2
	beyondCores           = 2 // so many workers more than cores show where the line bends
)

// measure starts a service of one worker, asks each model and fills in what it found.
func measure(ctx context.Context, cfg *config.Config, model string, verify bool, in *plan.Input) error {
	if len(cfg.Worker.Command) > 0 {
		return &ipc.Failure{
			Exit: ipc.ExitUsage, What: "worker.command is another program, of which nothing can be measured but by its own clients",
			Try: "give --model-memory and --latency as you have measured them",
		}
	}
	found, err := findModels(cfg)
	if err != nil {
		return err
	}
	defer found.Lease.Close()
	return locked(func() error {
		t, err := startTrial(ctx, cfg)
		if err != nil {
			return err
		}
		defer t.stop()
		return t.measure(ctx, cfg, found, model, verify, in)
	})
}

// findModels does what the service does: the copies are the same.
func findModels(cfg *config.Config) (*cache.Collection, error) {
	dir := cfg.CacheDir(os.Getenv, os.Getuid())
	return cache.Collect(cache.Options{
		Models: cfg.Models.Dir, Cache: dir, Decode: config.Decode, DecodeText: pbtxt.Decode, Shared: filepath.Dir(dir) == "/var/tmp",
		Readable: cfg.User != "",
	})
}

func (t *trial) measure(ctx context.Context, cfg *config.Config, found *cache.Collection, model string, verify bool, in *plan.Input) error {
	in.Source = "measured"
	var chosen asked
	var names []string
	for i := range found.Models {
		m := &found.Models[i]
		names = append(names, m.Name)
		a, err := t.request(ctx, m)
		if err != nil {
			return fmt.Errorf("model %s: %w", m.Name, err)
		}
		one, err := t.ask(ctx, a)
		if err != nil {
			return err
		}
		if several(found.Models, m.Name) {
			one.Name += "/" + m.Version
		}
		in.Models = append(in.Models, one)
		if m.Name == model || model == "" && one.Latency > in.Latency {
			in.Model, in.Latency, in.CPU, chosen = one.Name, one.Latency, min(one.CPU, one.Latency), a
		}
	}
	if chosen.bytes == nil {
		return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("--model: %s is not in %s, which holds %s", model, cfg.Models.Dir, strings.Join(slices.Compact(names), ", ")), Try: "name one that is there"}
	}
	if err := t.memory(ctx, cfg, found, in); err != nil {
		return err
	}
	if verify {
		return t.verify(ctx, chosen, in)
	}
	return nil
}

// several tells whether more than one version of a model is served.
func several(models []ipc.ModelFile, name string) bool {
	n := 0
	for i := range models {
		if models[i].Name == name {
			n++
		}
	}
	return n > 1
}

// ask sends a, one request after the other.
func (t *trial) ask(ctx context.Context, a asked) (m plan.Model, err error) {
	_, workers, err := t.pids(ctx)
	if err != nil {
		return m, err
	}
	before, err := machine.CPUSeconds(workers[0])
	if err != nil {
		return m, err
	}
	r, err := t.load(ctx, a, 1, askWarm, askFor)
	if err != nil {
		return m, err
	}
	after, err := machine.CPUSeconds(workers[0])
	if err != nil {
		return m, err
	}
	m = plan.Model{Name: a.model, Latency: plan.Time(r.Latency.P50), Sample: a.sample}
	m.CPU = seconds((after - before) / float64(r.Answers+r.Warmup.Answers))
	m.Layer = plan.Layer(time.Duration(m.Latency))
	return m, nil
}

// load puts the service under load from so many clients. No request may fail.
func (t *trial) load(ctx context.Context, a asked, clients int, warm, duration time.Duration) (*generator.Report, error) {
	r, err := generator.Run(ctx, generator.Options{
		Addr: "unix:" + t.socket(), Request: a.bytes, Conns: clients, Keepalive: true, Warmup: warm, Duration: duration,
		Timeout: time.Hour, // the service's own clocks end a request
	})
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case r.Failures.Total()+r.Warmup.Failures.Total() > 0:
		why := ""
		if len(r.First) > 0 {
			why = fmt.Sprintf(": %+v", r.First[0])
		}
		return nil, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: fmt.Sprintf("model %s, asked with %s: %d of %d requests failed%s", a.model, a.sample, r.Failures.Total()+r.Warmup.Failures.Total(), r.Requests, why),
			Try: "write a warmup.json with a request that it answers",
		}
	case r.Answers == 0: // all of the time went into one request of the warm-up
		return t.load(ctx, a, clients, 0, duration)
	}
	return r, nil
}

// memory measures the worker, which has answered requests of all models, and its pod.
func (t *trial) memory(ctx context.Context, cfg *config.Config, found *cache.Collection, in *plan.Input) error {
	own, workers, err := t.pids(ctx)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(cfg.CacheDir(os.Getenv, os.Getuid()))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // as mappings name it
	}
	if err != nil {
		return fmt.Errorf("find the cache: %w", err)
	}
	m, err := machine.MemoryOf(workers[0], dir)
	if err != nil {
		return err
	}
	in.Common, in.Own = m.Common, m.Own
	if in.Shared = m.Within > 0; in.Shared {
		in.Weights = m.Within
	} else {
		// Engines read weights into memory of their own, as large as the files.
		in.Weights = min(found.Bytes(), m.Own)
		in.Own -= in.Weights
	}
	for _, pid := range own {
		m, err := machine.MemoryOf(pid, dir)
		if err != nil {
			return err
		}
		in.Pod += m.Own + m.Common // this process maps its program too: no share of it counts
	}
	return nil
}

// verify puts 1, 2, … workers under load, as many as there are cores and some more, if memory
// carries them.
func (t *trial) verify(ctx context.Context, a asked, in *plan.Input) error {
	here, err := machine.Read()
	if err != nil {
		return fmt.Errorf("read the machine: %w", err)
	}
	need := sizing.Need{Private: in.Own + in.Weights, Shared: in.Common}
	if in.Shared {
		need = sizing.Need{Private: in.Own, Shared: in.Common + in.Weights}
	}
	most := sizing.Decide(sizing.Input{Cores: here.Cores}).Workers + beyondCores
	if here.Available > 0 {
		most = max(1, min(most, sizing.Fits(sizing.Room(here.Available), need)))
	}
	for n := 1; n <= most; n++ {
		if n > 1 {
			err := t.scale(ctx, n)
			if f := (*ipc.Failure)(nil); errors.As(err, &f) && f.Exit == ipc.ExitTryAgain { // memory does not carry it
				in.Stopped = f.What
				return nil
			}
			if err != nil {
				return err
			}
		}
		r, err := t.load(ctx, a, clientsPerWorker*n, verifyWarm, verifyFor)
		if err != nil {
			return err
		}
		s := plan.Step{Workers: n, Rate: r.Throughput(), P99: plan.Time(r.Latency.P99)}
		_, workers, err := t.pids(ctx)
		if err != nil {
			return err
		}
		for _, pid := range workers {
			pss, err := machine.PSS(pid)
			if err != nil {
				return err
			}
			s.PSS += uint64(pss)
		}
		in.Steps = append(in.Steps, s)
	}
	return nil
}

// scale gives the service n workers.
func (t *trial) scale(ctx context.Context, n int) error {
	_, err := t.admin.Scale(ctx, admin.ScaleRequest{Workers: n})
	return err
}
