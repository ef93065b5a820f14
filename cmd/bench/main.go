package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/urfave/cli/v2"

	"preforkd/internal/bench"
	"preforkd/internal/ipc"
)

// version is set by the linker; without it the build information is asked.
var version string

func main() {
	// Services end with the thread that started them: this one, which ends with the process.
	runtime.LockOSThread()
	err := run(context.Background(), os.Args, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "preforkd-bench:", err)
	}
	os.Exit(ipc.ExitStatus(err))
}

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name: "preforkd-bench", HelpName: "preforkd", Usage: "experiments with preforkd", Version: ipc.ProgramVersion(version), HideVersion: true, HideHelpCommand: true,
		Writer: out, ErrWriter: errOut, ExitErrHandler: func(*cli.Context, error) {}, OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usage("unknown command " + name)
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{labCommand(out, errOut)},
	}
	return app.RunContext(ctx, args)
}

func usageError(_ *cli.Context, err error, _ bool) error { return usage(err.Error()) }

func usage(what string) error {
	return &ipc.Failure{Exit: ipc.ExitUsage, What: what, Try: "preforkd lab --help"}
}

func labCommand(out, errOut io.Writer) *cli.Command {
	return &cli.Command{
		Name: "lab", OnUsageError: usageError,
		Usage: "start a service, measure what its layers, workers and cores make of waits and of work, and remove it again",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "beside", Usage: "measure the same with `WHAT`, too: fastapi"},
			&cli.StringFlag{Name: "python", Usage: "`PATH` of a Python that has fastapi and uvicorn; without it, the first of python3 and /usr/bin/python3 that has"},
			&cli.StringSliceFlag{Name: "only", Usage: "measure the experiment `NAME` alone; may be repeated"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usage("unknown argument " + name)
			}
			path, err := findPreforkd()
			if err != nil {
				return err
			}
			o := bench.LabOptions{
				Preforkd: path, Version: ipc.ProgramVersion(version), Beside: c.String("beside"), Python: c.String("python"), Only: c.StringSlice("only"),
				Env: os.Environ(), Progress: func(text string) { fmt.Fprintln(errOut, text) },
			}
			r, err := bench.Lab(c.Context, o)
			switch {
			case c.Context.Err() != nil:
				return fmt.Errorf("measure: %w", c.Context.Err())
			case err != nil:
				return err
			case c.Bool("json"):
				return json.NewEncoder(out).Encode(r)
			}
			return r.Text(out)
		},
	}
}

// findPreforkd looks for preforkd beside this program and on the search path.
func findPreforkd() (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), "preforkd")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("preforkd")
	if err != nil {
		return "", &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "find the service: preforkd is neither beside this program nor on $PATH", Err: err,
			Try: "make build, or install preforkd",
		}
	}
	return filepath.Abs(path)
}
