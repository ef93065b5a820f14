package main

import (
	"encoding/json"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

// adminFlags say which service a command is for.
func adminFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "the service that runs with `FILE`"},
		&cli.StringFlag{Name: "admin", Usage: "the service with the admin socket `PATH`"},
	}, more...)
}

// dial connects to the service that the command line of c names.
func dial(c *cli.Context) (*admin.Client, error) {
	if name := c.Args().First(); name != "" {
		return nil, unknownArgument(c, name)
	}
	return connect(c)
}

func unknownArgument(c *cli.Context, name string) error {
	return &ipc.Failure{Exit: ipc.ExitUsage, What: "unknown argument " + name, Try: "preforkd " + c.Command.Name + " --help"}
}

// configured reads the settings of the service that the command line of c names.
func configured(c *cli.Context) (*config.Config, error) {
	loaded, err := config.Load(config.Sources{File: c.String("config"), Explicit: c.IsSet("config"), Env: os.Environ()})
	if err != nil {
		return nil, &ipc.Failure{Exit: ipc.ExitConfig, What: err.Error(), Err: err}
	}
	return &loaded.Config, nil
}

// connect is dial for a command with operands of its own.
func connect(c *cli.Context) (*admin.Client, error) {
	if path := c.String("admin"); path != "" {
		return admin.Dial(path)
	}
	cfg, err := configured(c)
	if err != nil {
		return nil, err
	}
	path := cfg.AdminSocket(os.Getenv, os.Getuid())
	if path == "" {
		return nil, &ipc.Failure{Exit: ipc.ExitUsage, What: "the service has no admin socket: admin is off", Try: "--admin PATH"}
	}
	return admin.Dial(path)
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func reloadCommand(out, errOut io.Writer) *cli.Command {
	return &cli.Command{
		Name: "reload", Usage: "replace the running generation by what configuration and models say now",
		OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "show the differences, let one new worker test itself, and change nothing"},
			&cli.BoolFlag{Name: "no-wait", Usage: "exit with 75 when another reload is under way"},
		),
		Action: func(c *cli.Context) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return transaction(c, out, errOut, func(progress func(admin.Progress)) (admin.ReloadResult, error) {
				return client.Reload(c.Context, admin.ReloadRequest{DryRun: c.Bool("dry-run"), NoWait: c.Bool("no-wait")}, progress)
			})
		},
	}
}

func statusCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "how the service is", Flags: adminFlags(jsonFlag()), OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			st, err := client.Status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return json.NewEncoder(out).Encode(st)
			}
			return admin.Table(out, st)
		},
	}
}

func stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "stop the service, as TERM does", OnUsageError: usageError,
		Flags: adminFlags(&cli.BoolFlag{Name: "quick", Usage: "do not wait for what is in flight, as INT does"}),
		Action: func(c *cli.Context) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return client.Stop(c.Context, c.Bool("quick"))
		},
	}
}

func eventsCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "events", Usage: "what has happened", OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(), &cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "and what happens from now on"}),
		Action: func(c *cli.Context) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return client.Events(c.Context, 0, c.Bool("follow"), func(e admin.Event) error {
				if c.Bool("json") {
					return json.NewEncoder(out).Encode(e)
				}
				return admin.Lines(out, []admin.Event{e})
			})
		},
	}
}
