package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"
)

// labCommand becomes the program of the experiments, which reads the rest of the command line.
func labCommand() *cli.Command {
	return &cli.Command{
		Name: "lab", Usage: "experiments with layers, workers and cores, measured on this machine now (--help has its flags)",
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			self, err := meant(os.Args[0])
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			path, err := findBeside(self, "preforkd-bench", "the program of the experiments")
			if err != nil {
				return err
			}
			argv := append([]string{"preforkd-bench", "lab"}, c.Args().Slice()...)
			return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, argv, os.Environ()))
		},
	}
}
