package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor"
	"preforkd/internal/supervisor/process"
)

// version is set by the linker; without it the build information is asked.
var version string

func main() {
	if process.IsStep(os.Args) {
		err := process.RunStep(os.Args)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(ipc.ExitUnavailable)
	}
	err := run(context.Background(), os.Args, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "preforkd:", err)
	}
	os.Exit(ipc.ExitStatus(err))
}

// run carries out the command line.
func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	app := &cli.App{
		Name:            "preforkd",
		Usage:           "prefork server supervisor for model inference",
		Version:         ipc.ProgramVersion(version),
		HideVersion:     true,
		HideHelpCommand: true,
		// A list within one setting is separated by commas, and belongs together.
		DisableSliceFlagSeparator: true,
		Writer:                    out,
		ErrWriter:                 errOut,
		ExitErrHandler:            func(*cli.Context, error) {}, // main prints and exits
		OnUsageError:              usageError,
		Action:                    noCommand,
		Commands: []*cli.Command{
			serveCommand(out),
			reloadCommand(out, errOut),
			upgradeCommand(out, errOut),
			generationsCommand(out),
			rollbackCommand(out, errOut),
			scaleCommand(out),
			restartCommand(out),
			modelsCommand(out),
			tasksCommand(out),
			planCommand(out),
			labCommand(),
			statusCommand(out),
			healthCommand(out),
			stopCommand(),
			eventsCommand(out),
			configCommand(out),
			{
				Name: "version", Usage: "print the version", OnUsageError: usageError, Flags: []cli.Flag{jsonFlag()},
				Action: func(c *cli.Context) error {
					if c.Bool("json") {
						return json.NewEncoder(out).Encode(builtFrom())
					}
					_, err := fmt.Fprintln(out, "preforkd", ipc.ProgramVersion(version))
					return err
				},
			},
		},
	}
	return app.RunContext(ctx, operandsLast(args))
}

func noCommand(c *cli.Context) error {
	if name := c.Args().First(); name != "" {
		return &ipc.Failure{Exit: ipc.ExitUsage, What: "unknown command " + name, Try: "preforkd --help"}
	}
	return cli.ShowAppHelp(c)
}

func usageError(_ *cli.Context, err error, _ bool) error {
	return &ipc.Failure{Exit: ipc.ExitUsage, What: err.Error(), Try: "preforkd --help", Err: err}
}

// settingFlags are the flags by which a command line gives settings.
func settingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read settings from `FILE`"},
		&cli.StringSliceFlag{Name: "listen", Usage: "`ADDRESS` as 127.0.0.1:8000, unix:/path or fd:NAME; may be repeated"},
		&cli.StringFlag{Name: "workers", Aliases: []string{"w"}, Usage: "number of workers, or auto: `N`"},
		&cli.StringFlag{Name: "models", Usage: "serve the models in `DIR`"},
		&cli.BoolFlag{Name: "tasks-only", Usage: "run background tasks and answer nobody, as tasks.only does"},
		&cli.StringSliceFlag{Name: "set", Usage: "any setting: `KEY=VALUE`, as log.level=debug; may be repeated"},
	}
}

// load is loadSettings for a command that has no arguments.
func load(c *cli.Context) (*config.Loaded, error) {
	if name := c.Args().First(); name != "" {
		return nil, unknownArgument(c, name)
	}
	return loadSettings(c)
}

// loadSettings reads the settings that the command line of c names.
func loadSettings(c *cli.Context) (*config.Loaded, error) {
	src := config.Sources{File: c.String("config"), Explicit: c.IsSet("config"), Env: os.Environ()}
	for _, address := range c.StringSlice("listen") {
		src.Flags = append(src.Flags, config.Flag{Name: "--listen", Key: "listen", Value: address})
	}
	for _, key := range []string{"workers", "models"} {
		if c.IsSet(key) {
			src.Flags = append(src.Flags, config.Flag{Name: "--" + key, Key: key, Value: c.String(key)})
		}
	}
	if c.Bool("tasks-only") {
		for _, key := range []string{"tasks.enabled", "tasks.only"} {
			src.Flags = append(src.Flags, config.Flag{Name: "--tasks-only", Key: key, Value: "true"})
		}
	}
	for _, pair := range c.StringSlice("set") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("--set %s is not KEY=VALUE", pair), Try: "--set log.level=debug"}
		}
		src.Flags = append(src.Flags, config.Flag{Name: "--set " + key, Key: key, Value: value})
	}
	loaded, err := config.Load(src)
	if err != nil {
		return nil, &ipc.Failure{Exit: ipc.ExitConfig, What: err.Error(), Err: err}
	}
	return loaded, nil
}

// build is what this program was built from.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source
	Modified bool   `json:"modified,omitempty"` // the source was not as that
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func builtFrom() build {
	b := build{Version: ipc.ProgramVersion(version), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	return b
}

func serveCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "start workers and serve until a signal ends it",
		Flags: settingFlags(), OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			main, err := supervisor.FindMain()
			if err != nil {
				return err
			}
			if main == nil {
				if _, err := load(c); err != nil {
					return err
				}
				return becomeMain(os.Args)
			}
			s := supervisor.New(supervisor.Options{
				Main: main, Version: ipc.ProgramVersion(version), Out: out,
				Reread: func() (*config.Loaded, error) { return load(c) },
			})
			return s.Run(c.Context)
		},
	}
}

func configCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "config", Usage: "check or print the settings", OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			return &ipc.Failure{Exit: ipc.ExitUsage, What: "preforkd config needs check or print", Try: "preforkd config check"}
		},
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "say what is wrong with the settings, and with the files of tokens and certificates, and exit 78",
				Flags: settingFlags(), OnUsageError: usageError,
				Action: func(c *cli.Context) error { return check(c, out) },
			},
			{
				Name: "print", Usage: "print every setting with its source",
				Flags: settingFlags(), OnUsageError: usageError,
				Action: func(c *cli.Context) error {
					loaded, err := load(c)
					if err != nil {
						return err
					}
					return loaded.Print(out)
				},
			},
		},
	}
}

func check(c *cli.Context, out io.Writer) error {
	loaded, err := load(c)
	if err != nil {
		return err
	}
	door, err := supervisor.CheckDoor(&loaded.Config)
	for _, w := range append(loaded.Warnings, door...) {
		fmt.Fprintln(out, "warning:", w)
	}
	if err != nil {
		return err
	}
	for _, line := range loaded.Routes() {
		fmt.Fprintln(out, line)
	}
	what := loaded.File
	if what == "" {
		what = "no file"
	}
	_, err = fmt.Fprintf(out, "%s: settings are valid\n", what)
	return err
}
