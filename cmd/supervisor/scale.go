package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

func scaleCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "scale", Usage: "change how many workers a pool has", ArgsUsage: "N|+N|-N", OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(),
			&cli.StringFlag{Name: "pool", Usage: "the pool `NAME` instead of main"},
			&cli.BoolFlag{Name: "no-wait", Usage: "exit with 75 when another operation is under way"},
			&cli.BoolFlag{Name: "force", Usage: "do it where memory does not carry it, too"},
		),
		Action: func(c *cli.Context) error {
			req := admin.ScaleRequest{Pool: c.String("pool"), NoWait: c.Bool("no-wait"), Force: c.Bool("force")}
			if c.NArg() != 1 {
				return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("scale needs one size, not %d arguments", c.NArg()), Try: "preforkd scale 4, or +1, or -1"}
			}
			var err error
			if req.Workers, req.Relative, err = admin.ParseWorkers(c.Args().First()); err != nil {
				return err
			}
			client, err := connect(c)
			if err != nil {
				return err
			}
			defer client.Close()
			result, err := client.Scale(c.Context, req)
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

// withOperands are commands whose operands may stand before their flags, and be negative.
var withOperands = [][]string{{"scale"}, {"restart"}, {"rollback"}, {"upgrade"}, {"models", "release"}, {"models", "load"}, {"models", "unload"}, {"models", "prepare"}, {"tasks", "show"}, {"tasks", "cancel"}, {"tasks", "retry"}}

// takesValue are the flags of these commands whose value may be an argument of its own.
var takesValue = []string{"-c", "--c", "-config", "--config", "-admin", "--admin", "-pool", "--pool", "-version", "--version", "-file", "--file", "-models", "--models", "-set", "--set", "-w", "--w", "-workers", "--workers", "-listen", "--listen"}

// operandsLast moves the operands of a command behind its flags and a --, as package flag
// wants them.
func operandsLast(args []string) []string {
	words := 0 // of the command
	for _, command := range withOperands {
		if n := len(command); len(args) > n && slices.Equal(args[1:1+n], command) {
			words = n
		}
	}
	if words == 0 {
		return args
	}
	flags, operands := slices.Clone(args[:1+words]), []string(nil)
	for i := 1 + words; i < len(args); i++ {
		a := args[i]
		number := len(a) > 1 && strings.Trim(a[1:], "0123456789") == ""
		switch {
		case a == "--":
			operands = append(operands, args[i+1:]...)
			i = len(args)
		case !strings.HasPrefix(a, "-") || a == "-" || number:
			operands = append(operands, a)
		case slices.Contains(takesValue, a) && i+1 < len(args):
			flags = append(flags, a, args[i+1])
			i++
		default:
			flags = append(flags, a)
		}
	}
	return append(append(flags, "--"), operands...)
}
