package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

func restartCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "restart", Usage: "replace workers by new ones, which are ready first", ArgsUsage: "SLOT", OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(),
			&cli.StringFlag{Name: "pool", Usage: "the pool `NAME` instead of main"},
			&cli.BoolFlag{Name: "all", Usage: "all workers of the pool, one after the other"},
			&cli.BoolFlag{Name: "no-wait", Usage: "exit with 75 when another operation is under way"},
		),
		Action: func(c *cli.Context) (err error) {
			req := admin.RestartRequest{Pool: c.String("pool"), All: c.Bool("all"), NoWait: c.Bool("no-wait")}
			switch {
			case req.All && c.NArg() == 0:
			case !req.All && c.NArg() == 1:
				if req.Slot, err = admin.ParseSlot(c.Args().First()); err != nil {
					return err
				}
			default:
				return &ipc.Failure{Exit: ipc.ExitUsage, What: "restart needs one slot, or --all", Try: "preforkd restart 0, or preforkd restart --all"}
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			defer client.Close()
			result, err := client.Restart(c.Context, req)
			if c.Bool("json") {
				return errors.Join(json.NewEncoder(out).Encode(result), err)
			}
			if err == nil {
				fmt.Fprintln(out, result.Message)
			}
			return err
		},
	}
}
