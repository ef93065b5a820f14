package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

func tasksCommand(out io.Writer) *cli.Command {
	list := func(do string) cli.ActionFunc {
		return func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return unknownArgument(c, name)
			}
			return tasksDo(c, out, ipc.TaskOrder{Do: do, Model: c.String("model"), Most: c.Int("limit")})
		}
	}
	one := func(do string) cli.ActionFunc {
		return func(c *cli.Context) error {
			if c.NArg() != 1 {
				return &ipc.Failure{Exit: ipc.ExitUsage, What: "tasks " + do + " needs the id of one task", Try: "preforkd tasks ls"}
			}
			return tasksDo(c, out, ipc.TaskOrder{Do: do, ID: c.Args().First()})
		}
	}
	most := &cli.IntFlag{Name: "limit", Value: 100, Usage: "at most `N` of them"}
	return &cli.Command{
		Name: "tasks", Usage: "background tasks: list, show, cancel, retry", OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(), most), Action: list(ipc.TaskList),
		Subcommands: []*cli.Command{
			{
				Name: "ls", Usage: "list tasks, the latest first", OnUsageError: usageError,
				Flags:  adminFlags(jsonFlag(), most, &cli.StringFlag{Name: "model", Usage: "those of the model `NAME`"}),
				Action: list(ipc.TaskList),
			},
			{Name: "dead", Usage: "list the tasks that are parked", OnUsageError: usageError, Flags: adminFlags(jsonFlag(), most), Action: list(ipc.TaskDead)},
			{Name: "show", Usage: "show a task", ArgsUsage: "ID", OnUsageError: usageError, Flags: adminFlags(jsonFlag()), Action: one(ipc.TaskShow)},
			{Name: "cancel", Usage: "cancel a task", ArgsUsage: "ID", OnUsageError: usageError, Flags: adminFlags(jsonFlag()), Action: one(ipc.TaskCancel)},
			{Name: "retry", Usage: "run a task that is parked once more", ArgsUsage: "ID", OnUsageError: usageError, Flags: adminFlags(jsonFlag()), Action: one(ipc.TaskRetry)},
		},
	}
}

func tasksDo(c *cli.Context, out io.Writer, o ipc.TaskOrder) error {
	client, err := connect(c)
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Tasks(c.Context, o)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return json.NewEncoder(out).Encode(answer)
	case o.Do == ipc.TaskShow:
		for _, t := range answer.Tasks {
			enc := json.NewEncoder(out)
			enc.SetIndent("", "  ")
			if err := enc.Encode(t); err != nil {
				return err
			}
		}
		return nil
	case answer.Message != "":
		_, err := fmt.Fprintln(out, answer.Message)
		return err
	}
	return admin.TaskTable(out, answer.Tasks, time.Now())
}
