package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	rounds   int
	duration time.Duration
	warmup   time.Duration
	conns    int
	starts   int
	only     string
	peers    string
	build    bool
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(progress)
	f.IntVar(&o.rounds, "rounds", 5, "how often each peer is measured")
	f.DurationVar(&o.duration, "duration", 4*time.Second, "how long each time")
	f.DurationVar(&o.warmup, "warmup", time.Second, "load before that, which is not measured")
	f.IntVar(&o.conns, "conns", 16, "keep-alive connections")
	f.IntVar(&o.starts, "starts", 7, "starts of each kind that are timed")
	f.StringVar(&o.only, "only", "", "scenarios, separated by commas; empty: all of "+strings.Join(names(), ", "))
	f.StringVar(&o.peers, "peers", "", "peers of the scenario serve, separated by commas; empty: all")
	f.BoolVar(&o.build, "build", true, "run make build first")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || o.rounds < 1 || o.starts < 1 || o.conns < 1 || o.duration <= 0 {
		return errors.New("there are no arguments besides flags, and numbers are positive; see --help")
	}
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	l, err := newLab(ctx, o, out, progress)
	if err != nil {
		return err
	}
	for _, s := range chosen {
		l.say("%s: %s", s.name, s.about)
		r, err := s.run(ctx, l)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := l.publish(s, r); err != nil {
			return err
		}
	}
	return nil
}

// choose returns the scenarios named in list.
func choose(list string) ([]scenario, error) {
	if list == "" {
		return scenarios, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(list, ",") {
		i := slices.Index(names(), strings.TrimSpace(name))
		if i < 0 {
			return nil, fmt.Errorf("no scenario is called %q; there are %s", name, strings.Join(names(), ", "))
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}
