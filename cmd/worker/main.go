package main

import (
	"context"
	"fmt"
	"os"

	"preforkd/internal/ipc"
	"preforkd/internal/worker"
)

// version is set by the linker; without it the build information is asked.
var version string

func main() {
	err := run(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "preforkd-worker:", err)
	}
	os.Exit(ipc.ExitStatus(err))
}

func run(ctx context.Context) error {
	if len(os.Args) > 1 && os.Args[1] == ipc.PrepareCommand {
		return worker.Prepare(os.Args[2:])
	}
	return worker.Run(ctx, ipc.ProgramVersion(version))
}
