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
	picture  string
	short    bool
	build    bool
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(progress)
	f.IntVar(&o.rounds, "rounds", 0, "how often each peer is measured; 0: as often as the scenario needs")
	f.DurationVar(&o.duration, "duration", 4*time.Second, "how long each time")
	f.DurationVar(&o.warmup, "warmup", time.Second, "load before that, which is not measured")
	f.IntVar(&o.conns, "conns", 16, "keep-alive connections")
	f.IntVar(&o.starts, "starts", 7, "starts of each kind that are timed")
	f.StringVar(&o.only, "only", "", "scenarios, separated by commas, reload for all that begin so; empty: serve,start,allocs of "+strings.Join(names(), ", "))
	f.StringVar(&o.peers, "peers", "", "peers, separated by commas; empty: all that are installed")
	f.StringVar(&o.picture, "picture", "", "where reload-slow puts its picture; empty: bench/out/reload.svg")
	f.BoolVar(&o.short, "short", false, "few and short measurements, to see that all works; the numbers mean nothing")
	f.BoolVar(&o.build, "build", true, "run make build first")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || o.rounds < 0 || o.starts < 1 || o.conns < 1 || o.duration <= 0 {
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

// choose returns the scenarios named in list. A name that no scenario has stands for all that
// begin with it and a hyphen.
func choose(list string) (chosen []scenario, err error) {
	if list == "" {
		return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return s.apart }), nil
	}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name }); i >= 0 {
			chosen = append(chosen, scenarios[i])
			continue
		}
		before := len(chosen)
		for _, s := range scenarios {
			if strings.HasPrefix(s.name, name+"-") {
				chosen = append(chosen, s)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("no scenario is called %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	return chosen, nil
}

// times returns how often to measure, where the command line does not say it: usual, or
// once if it shall be short.
func (o *options) times(usual int) int {
	switch {
	case o.rounds > 0:
		return o.rounds
	case o.short:
		return 1
	}
	return usual
}

// of returns usual, or quick if it shall be short.
func of[T any](o *options, usual, quick T) T {
	if o.short {
		return quick
	}
	return usual
}
