package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"preforkd/internal/ipc"
)

// becomeMain makes this process the main process of the service, which starts this program
// again as its supervisor. It returns only when that cannot be done.
func becomeMain(args []string) error {
	self, err := meant(args[0])
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	path, err := findBeside(self, "preforkd-anchor", "the main process")
	if err != nil {
		return err
	}
	argv := append([]string{"preforkd-anchor", self}, args[1:]...)
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, argv, os.Environ()))
}

// meant returns the absolute path by which this program was called. Symbolic links stay: who
// flips one means the other program from then on.
func meant(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return os.Executable() // the caller named it otherwise
	}
	return filepath.Abs(path)
}

// findBeside looks for a program of ours beside this one and on the search path. what is what it
// is for.
func findBeside(self, name, what string) (string, error) {
	dirs := []string{filepath.Dir(self)}
	if real, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "find " + what + ": " + name + " is neither beside this program nor on $PATH", Err: err,
			Try: "make build, or install " + name + " beside " + self,
		}
	}
	return filepath.Abs(path)
}
