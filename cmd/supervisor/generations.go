package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

func generationsCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "generations", Usage: "the latest generations that served, and what each changed", Flags: adminFlags(jsonFlag()), OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			all, err := client.Generations(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return json.NewEncoder(out).Encode(all)
			}
			return admin.GenerationTable(out, all)
		},
	}
}

func rollbackCommand(out, errOut io.Writer) *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "return to the generation before, or to the one named", ArgsUsage: "[GENERATION]", OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(), &cli.BoolFlag{Name: "no-wait", Usage: "exit with 75 when another operation is under way"}),
		Action: func(c *cli.Context) error {
			req := admin.RollbackRequest{NoWait: c.Bool("no-wait")}
			if c.NArg() > 1 {
				return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("rollback takes one generation, not %d arguments", c.NArg()), Try: "preforkd rollback, or preforkd rollback 3"}
			}
			if c.NArg() == 1 {
				var err error
				if req.Generation, err = admin.ParseGeneration(c.Args().First()); err != nil {
					return err
				}
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return transaction(c, out, errOut, func(progress func(admin.Progress)) (admin.ReloadResult, error) {
				return client.Rollback(c.Context, req, progress)
			})
		},
	}
}

func upgradeCommand(out, errOut io.Writer) *cli.Command {
	return &cli.Command{
		Name: "upgrade", Usage: "replace the program as well: go on with the one at PATH, or with what lies where the service was started from",
		ArgsUsage: "[PATH]", OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(), &cli.BoolFlag{Name: "no-wait", Usage: "exit with 75 when another operation is under way"},
			&cli.BoolFlag{Name: "env", Usage: "with the environment of this command; without it the service keeps its own"}),
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("upgrade takes one program, not %d arguments", c.NArg()), Try: "preforkd upgrade, or preforkd upgrade /usr/bin/preforkd"}
			}
			req := admin.UpgradeRequest{NoWait: c.Bool("no-wait"), Program: c.Args().First()}
			if c.Bool("env") {
				req.Environ = os.Environ()
			}
			if req.Program != "" {
				var err error
				if req.Program, err = filepath.Abs(req.Program); err != nil {
					return err
				}
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return transaction(c, out, errOut, func(progress func(admin.Progress)) (admin.ReloadResult, error) {
				return client.Upgrade(c.Context, req, progress)
			})
		},
	}
}

// transaction carries out a reload or a rollback and prints how it goes.
func transaction(c *cli.Context, out, errOut io.Writer, carryOut func(progress func(admin.Progress)) (admin.ReloadResult, error)) error {
	progress := func(p admin.Progress) { fmt.Fprintln(errOut, p.Text) }
	if c.Bool("json") {
		progress = nil
	}
	result, err := carryOut(progress)
	if c.Bool("json") {
		return errors.Join(json.NewEncoder(out).Encode(result), err)
	}
	for _, d := range result.Differences {
		fmt.Fprintln(out, d)
	}
	if err == nil {
		fmt.Fprintln(out, result.Message)
	}
	return err
}
