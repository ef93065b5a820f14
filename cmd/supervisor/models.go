package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

func modelsCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "models", Usage: "the models that are served, and which of them are quarantined", Flags: adminFlags(jsonFlag()), OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			models, err := client.Models(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return json.NewEncoder(out).Encode(models)
			}
			return admin.ModelTable(out, models)
		},
		Subcommands: []*cli.Command{{
			Name: "release", Usage: "serve a quarantined model again", ArgsUsage: "NAME", Flags: adminFlags(jsonFlag()), OnUsageError: usageError,
			Action: func(c *cli.Context) error { return release(c, out) },
		}},
	}
}

func release(c *cli.Context, out io.Writer) error {
	if c.NArg() != 1 {
		return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("models release needs one model, not %d arguments", c.NArg()), Try: "preforkd models release NAME"}
	}
	client, err := connect(c)
	if err != nil {
		return err
	}
	defer client.Close()
	result, err := client.Release(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(out).Encode(result)
	}
	_, err = fmt.Fprintln(out, result.Message)
	return err
}
