package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/plan"
	"preforkd/internal/supervisor/sizing"
)

// What a worker is planned with where only its model was given: measured with ONNX Runtime 1.24 on
// Linux, amd64. A measurement on the machine replaces them.
const (
	commonBytes = 40 << 20 // the pages of program and engine, which all workers map
	podBytes    = 48 << 20 // main process and supervisor
)

// Values of --weights. The first is what a service does by its defaults: inference.prepare.
const (
	weightsShared = "shared"
	weightsCopies = "copies"
)

// targetOf is the p99 that is wanted where nobody has said so, as a multiple of one request.
const targetOf = 5

// maxGiven bounds sizes on the command line: sums of them stay far from overflowing.
const maxGiven = 1 << 50

func planCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "how many workers and pods: measures this machine and its models, or takes numbers", OnUsageError: usageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "measure with the settings of `FILE`"},
			&cli.StringFlag{Name: "models", Usage: "measure the models in `DIR`"},
			&cli.StringSliceFlag{Name: "set", Usage: "any setting: `KEY=VALUE`; may be repeated"},
			&cli.StringFlag{Name: "model", Usage: "plan for requests of the model `NAME`; without it, of the slowest"},
			&cli.Float64Flag{Name: "cores", Usage: "`N` cores, as 8 or 2.5, instead of this machine's"},
			&cli.StringFlag{Name: "memory", Usage: "`SIZE`, as 16GiB, instead of this machine's"},
			&cli.StringFlag{Name: "model-memory", Usage: "`SIZE` of the weights; with --latency nothing is measured"},
			&cli.DurationFlag{Name: "latency", Usage: "`TIME` of one request, as 40ms"},
			&cli.DurationFlag{Name: "cpu", Usage: "`TIME` of a core that one request takes; without it, all of --latency"},
			&cli.StringFlag{Name: "weights", Usage: "shared or copies: all workers have one copy, as of a prepared model, or each its own: `HOW`", Value: weightsShared},
			&cli.DurationFlag{Name: "p99", Usage: fmt.Sprintf("the p99 that is wanted, as `TIME`; without it, %d times one request", targetOf)},
			&cli.Float64Flag{Name: "rate", Usage: "how many pods carry `R` requests/s at that p99"},
			&cli.Float64Flag{Name: "price-per-core-hour", Usage: "what a core costs an hour, as `PRICE`: prints the cost of a million requests"},
			&cli.IntFlag{Name: "pods", Usage: "with --workers: what `N` pods do at once"},
			&cli.IntFlag{Name: "workers", Usage: "of `N` workers each"},
			&cli.IntFlag{Name: "waits", Usage: "each with `N` requests that wait for something else than a core", Value: plan.WaitsEach},
			&cli.BoolFlag{Name: "verify", Usage: "put 1, 2, … workers of these models under load"},
			&cli.BoolFlag{Name: "kubernetes", Usage: "print requests and limits for a Deployment"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error { return runPlan(c, out) },
	}
}

func runPlan(c *cli.Context, out io.Writer) error {
	if name := c.Args().First(); name != "" {
		return unknownArgument(c, name)
	}
	if err := checkPlan(c); err != nil {
		return err
	}
	if c.IsSet("pods") {
		capacity := plan.CapacityOf(c.Int("pods"), c.Int("workers"), c.Int("waits"))
		if c.Bool("json") {
			return json.NewEncoder(out).Encode(capacity)
		}
		return capacity.Text(out)
	}
	in, err := planInput(c)
	if err != nil {
		return err
	}
	r := plan.Make(in)
	switch {
	case c.Bool("json"):
		err = json.NewEncoder(out).Encode(r)
	case c.Bool("kubernetes"):
		if r.Best != nil {
			return r.Kubernetes(out)
		}
	default:
		err = r.Text(out)
	}
	if err == nil && r.Best == nil {
		return &ipc.Failure{Exit: ipc.ExitConfig, What: "no layout fits: " + r.Reason, Try: "more memory, or a smaller model"}
	}
	return err
}

// given tells whether the request was given, so that nothing is measured.
func given(c *cli.Context) bool { return c.IsSet("latency") || c.IsSet("model-memory") }

// checkPlan refuses what cannot be planned with.
func checkPlan(c *cli.Context) error {
	for _, f := range []struct {
		flag    string
		v, most float64
		try     string
	}{
		{"cores", c.Float64("cores"), sizing.MaxWorkers, "--cores 8"},
		{"rate", c.Float64("rate"), 1e9, "--rate 500"},
		{"price-per-core-hour", c.Float64("price-per-core-hour"), 1e6, "--price-per-core-hour 0.05"},
		{"pods", float64(c.Int("pods")), 1e6, "--pods 3 --workers 4"},
		{"workers", float64(c.Int("workers")), 1e6, "--pods 3 --workers 4"},
		{"waits", float64(c.Int("waits")), 1e6, "--waits 1000"},
		{"latency", c.Duration("latency").Seconds(), 24 * 3600, "--latency 40ms"},
		{"cpu", c.Duration("cpu").Seconds(), 24 * 3600, "--cpu 30ms"},
		{"p99", c.Duration("p99").Seconds(), 24 * 3600, "--p99 200ms"},
	} {
		if c.IsSet(f.flag) && !(f.v > 0 && f.v <= f.most) || math.IsNaN(f.v) {
			return planUsage(fmt.Sprintf("--%s is out of range: more than 0, %v at most", f.flag, f.most), f.try)
		}
	}
	if c.IsSet("cores") && c.Float64("cores") < 0.01 { // a cgroup's quota has a thousandth of a second
		return planUsage("--cores is less than a hundredth", "--cores 0.5")
	}
	for _, pair := range []struct {
		a, b string
		try  string
	}{{"pods", "workers", "--pods 3 --workers 4"}, {"latency", "model-memory", "--model-memory 2GiB --latency 40ms"}} {
		if c.IsSet(pair.a) != c.IsSet(pair.b) {
			return planUsage(fmt.Sprintf("--%s and --%s belong together", pair.a, pair.b), pair.try)
		}
	}
	measures := []string{"verify", "models", "config", "set", "model"}
	only := []string{"weights", "cpu"}
	switch {
	case c.Bool("json") && c.Bool("kubernetes"):
		return planUsage("--json and --kubernetes are two forms of one plan", "one of them")
	case given(c):
		for _, name := range measures {
			if c.IsSet(name) {
				return planUsage("--"+name+" measures, and the numbers are given", "leave --latency and --model-memory out")
			}
		}
		if c.Duration("cpu") > c.Duration("latency") {
			return planUsage("--cpu is more than --latency: engines run on one core", "--cpu as long as --latency, or shorter")
		}
	default:
		for _, name := range only {
			if c.IsSet(name) {
				return planUsage("--"+name+" is measured here", "give --model-memory and --latency too")
			}
		}
	}
	return nil
}

func planUsage(what, try string) error {
	return &ipc.Failure{Exit: ipc.ExitUsage, What: what, Try: try}
}

// planInput is what was given, and of the rest what this machine has.
func planInput(c *cli.Context) (in plan.Input, err error) {
	in.Cores, in.Rate, in.Price = c.Float64("cores"), c.Float64("rate"), c.Float64("price-per-core-hour")
	if in.Memory, err = sizeFlag(c, "memory"); err != nil {
		return in, err
	}
	if in.Cores == 0 || in.Memory == 0 {
		found, err := machine.Read()
		if in.Cores == 0 {
			in.Cores = found.Cores
		}
		if in.Memory == 0 {
			in.Memory = found.Memory
		}
		if in.Memory == 0 {
			return in, &ipc.Failure{Exit: ipc.ExitUnavailable, What: fmt.Sprintf("how much memory there is cannot be read: %v", err), Try: "--memory 16GiB", Err: err}
		}
	}
	if given(c) {
		in.Source, in.Own, in.Common, in.Pod = "given", sizing.ProcessBytes, commonBytes, podBytes
		in.Latency, in.CPU = plan.Time(c.Duration("latency")), plan.Time(c.Duration("cpu"))
		switch how := c.String("weights"); how {
		case weightsShared, weightsCopies:
			in.Shared = how == weightsShared
		default:
			return in, planUsage("--weights is shared or copies, not "+how, "--weights "+weightsShared)
		}
		in.Weights, err = sizeFlag(c, "model-memory")
	} else {
		err = measureHere(c, &in)
	}
	in.Target = plan.Time(c.Duration("p99"))
	if in.Target == 0 {
		in.Target = targetOf * in.Latency
	}
	return in, err
}

// measureHere measures until a signal ends it.
func measureHere(c *cli.Context, in *plan.Input) error {
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	loaded, err := load(c)
	if err != nil {
		return err
	}
	err = measure(ctx, &loaded.Config, c.String("model"), c.Bool("verify"), in)
	if ctx.Err() != nil {
		return fmt.Errorf("measure: %w", ctx.Err())
	}
	return err
}

func sizeFlag(c *cli.Context, name string) (uint64, error) {
	if !c.IsSet(name) {
		return 0, nil
	}
	var b config.Bytes
	text := strings.TrimSpace(c.String(name))
	if err := b.UnmarshalText([]byte(text)); err != nil {
		return 0, planUsage(fmt.Sprintf("--%s %q %v", name, text, err), "--"+name+" 2GiB")
	}
	if b < 1 || b > maxGiven {
		return 0, planUsage(fmt.Sprintf("--%s %s is out of range: more than 0, %s at most", name, text, config.Bytes(maxGiven)), "--"+name+" 2GiB")
	}
	return uint64(b), nil
}

// seconds is s as a duration.
func seconds(s float64) plan.Time { return plan.Time(s * float64(time.Second)) }
