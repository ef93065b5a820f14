package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"preforkd/internal/anchor"
	"preforkd/internal/ipc"
)

func main() {
	status, err := run(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "preforkd-anchor:", err)
		status = ipc.ExitStatus(err)
	}
	os.Exit(status)
}

// run is the main process of the supervisor that args name.
func run(args []string) (status int, err error) {
	if len(args) < 3 || !filepath.IsAbs(args[1]) {
		return 0, &ipc.Failure{Exit: ipc.ExitUsage, What: "preforkd-anchor is not for people: it needs a program and its arguments", Try: "preforkd serve"}
	}
	debug.SetGCPercent(25) // there is little to collect, and it shall stay little
	runtime.GOMAXPROCS(1)  // and little to do: no thread wakes another
	return anchor.Run(anchor.Options{
		Program: args[1], Args: args[2:],
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}
