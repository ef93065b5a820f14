package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor"
	"preforkd/internal/supervisor/admin"
)

func modelsCommand(out io.Writer) *cli.Command {
	list := func(c *cli.Context) error {
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
	}
	pool := &cli.StringFlag{Name: "pool", Usage: "in the models directory of the pool `NAME` instead of main"}
	noWait := &cli.BoolFlag{Name: "no-wait", Usage: "exit with 75 when another operation is under way"}
	return &cli.Command{
		Name: "models", Usage: "the models that are served, and which of them are quarantined", Flags: adminFlags(jsonFlag()), OnUsageError: usageError,
		Action: list,
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "the same", Flags: adminFlags(jsonFlag()), OnUsageError: usageError, Action: list},
			{
				Name: "load", Usage: "load a model, or another version of it, in every worker", ArgsUsage: "NAME", OnUsageError: usageError,
				Flags: adminFlags(
					jsonFlag(), pool, noWait,
					&cli.StringFlag{Name: "version", Usage: "serve the version `N` and no other"},
					&cli.StringSliceFlag{Name: "file", Usage: "send `FILE` instead of taking what lies in the models directory; may be repeated"},
				),
				Action: func(c *cli.Context) error { return changeModel(c, out, "load") },
			},
			{
				Name: "unload", Usage: "take a model away from every worker", ArgsUsage: "NAME", OnUsageError: usageError,
				Flags:  adminFlags(jsonFlag(), pool, noWait),
				Action: func(c *cli.Context) error { return changeModel(c, out, "unload") },
			},
			{
				Name: "prepare", Usage: "prepare models ahead of a start, which finds them in the cache", ArgsUsage: "[NAME ...]", Flags: settingFlags(), OnUsageError: usageError,
				Action: func(c *cli.Context) error { return prepareModels(c, out) },
			},
			{
				Name: "release", Usage: "serve a quarantined model again", ArgsUsage: "NAME", Flags: adminFlags(jsonFlag()), OnUsageError: usageError,
				Action: func(c *cli.Context) error { return release(c, out) },
			},
		},
	}
}

// changeModel loads or unloads one.
func changeModel(c *cli.Context, out io.Writer, verb string) error {
	if c.NArg() != 1 {
		return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("models %s needs one model, not %d arguments", verb, c.NArg()), Try: "preforkd models " + verb + " NAME"}
	}
	client, err := connect(c)
	if err != nil {
		return err
	}
	defer client.Close()
	req := admin.ModelRequest{Name: c.Args().First(), Pool: c.String("pool"), NoWait: c.Bool("no-wait")}
	var result admin.ModelResult
	if verb == "load" {
		req.Version, req.Files = c.String("version"), c.StringSlice("file")
		result, err = client.Load(c.Context, req)
	} else {
		result, err = client.Unload(c.Context, req)
	}
	if err != nil {
		if f := (*ipc.Failure)(nil); c.Bool("json") && errors.As(err, &f) {
			result = admin.ModelResult{Exit: f.Exit, Message: f.What, Try: f.Try, Model: req.Name, Versions: []string{}}
			return errors.Join(json.NewEncoder(out).Encode(result), err)
		}
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(out).Encode(result)
	}
	_, err = fmt.Fprintln(out, result.Message)
	return err
}

// prepareModels needs no service: it does what a start would.
func prepareModels(c *cli.Context, out io.Writer) error {
	loaded, err := loadSettings(c)
	if err != nil {
		return err
	}
	return supervisor.PrepareModels(c.Context, &loaded.Config, c.Args().Slice(), out, c.App.ErrWriter)
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
