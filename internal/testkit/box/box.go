package box

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/testkit"
)

// Result is how a command ended.
type Result struct {
	Out  string // standard output and error together
	Exit int
}

// OK returns r's output and fails the test if the command did.
func (r Result) OK(t testing.TB) string {
	t.Helper()
	if r.Exit != 0 {
		t.Fatalf("exit status %d:\n%s", r.Exit, r.Out)
	}
	return r.Out
}

// patience is how long a step may take that is none of the test's business, as to build the
// root file system on a slow network.
const patience = 15 * time.Minute

var (
	haveSystemd    = sync.OnceValue(func() string { return missing("systemd-box.sh") })
	haveContainers = sync.OnceValue(func() string { return missing("container-box.sh") })
)

// missing asks a script why it cannot run here; empty: it can.
func missing(script string) string {
	path, err := find(script)
	if err != nil {
		return err.Error()
	}
	r, err := run(patience, path, "check")
	switch {
	case err != nil:
		return err.Error()
	case r.Exit == 0:
		return ""
	}
	if r.Out = strings.TrimSpace(r.Out); r.Out == "" {
		return fmt.Sprintf("%s check: exit status %d", script, r.Exit)
	}
	return r.Out
}

func need(t testing.TB, why string) {
	t.Helper()
	if why != "" {
		t.Skip("skipped: " + why)
	}
}

// script returns the path of one of the scripts.
func script(t testing.TB, name string) string {
	t.Helper()
	path, err := find(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func find(name string) (string, error) {
	dir, err := testkit.FindRoot()
	return filepath.Join(dir, "internal", "testkit", "box", name), err
}

// run runs a program. An error means that it could not be run at all, or not in time.
func run(limit time.Duration, program string, args ...string) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second // a grandchild may hold the pipe
	err := cmd.Run()
	r := Result{Out: out.String(), Exit: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("%s: no end after %s:\n%s", filepath.Base(program), limit, r.Out)
	case err == nil, errors.As(err, &exit):
		return r, nil
	}
	return r, fmt.Errorf("run %s: %w", program, err)
}

func mustRun(t testing.TB, program string, args ...string) Result {
	t.Helper()
	r, err := run(patience, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
