package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"preforkd/internal/broker"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
)

func main() {
	err := run(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "preforkd-broker:", err)
	}
	os.Exit(ipc.ExitStatus(err))
}

func run(args []string) error {
	o := broker.Options{Log: slog.New(slog.NewJSONHandler(os.Stderr, nil))}
	flags := flag.NewFlagSet("preforkd-broker", flag.ContinueOnError)
	flags.StringVar(&o.Dir, "store", "", "directory of the queue, which preforkd has made")
	flags.Uint64Var(&o.MaxStore, "max", 0, "bytes that may be stored; 0: three quarters of what is free")
	flags.Uint64Var(&o.Reserve, "reserve", 0, "bytes of the file system that stay free")
	flags.Int64Var(&o.Memory, "memory", 0, "bytes that the garbage collector keeps to; 0: no limit")
	flags.DurationVar(&o.Sync, "sync", 0, "how often to bring what was accepted to the disk; 0: before each answer")
	if err := flags.Parse(args[1:]); err != nil || !filepath.IsAbs(o.Dir) {
		return &ipc.Failure{Exit: ipc.ExitUsage, What: "preforkd-broker is not for people: it needs --store and a directory", Try: "preforkd serve --set tasks.enabled=true"}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer stop()
	// These steer the supervisor; `systemctl kill` sends them to every process.
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE)
	var err error
	if o.Supervisor, err = notify.FromEnvironment(); err != nil {
		return err
	}
	defer o.Supervisor.Close()
	in, err := activation.Inherited()
	if err != nil {
		return err
	}
	if fd, ok := in.Extra[ipc.FDLifeline]; ok { // the supervisor's, not the main process's
		go func() { // ends with the supervisor, or with this process
			activation.AwaitEnd(fd)
			stop()
		}()
	}
	err = broker.Run(ctx, o)
	if err != nil {
		f := &ipc.Failure{Exit: ipc.ExitOther, What: err.Error()}
		if own, ok := err.(*ipc.Failure); ok {
			f = own
		}
		_ = o.Supervisor.SendWait(ipc.KeyFailure + "=" + ipc.EncodeFailure(f))
	}
	return err
}
