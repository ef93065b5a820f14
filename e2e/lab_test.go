package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/bench"
	"preforkd/internal/testkit"
)

// experiments is preforkd lab with a temporary directory of its own.
func experiments(t *testing.T, args ...string) (cmd *exec.Cmd, tmp string, errOut *bytes.Buffer) {
	t.Helper()
	tmp = t.TempDir()
	cmd = exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), append([]string{"lab"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "GORACE=atexit_sleep_ms=0", "PREFORKD_LISTEN=127.0.0.1:1", "NOTIFY_SOCKET=/nowhere")
	errOut = &bytes.Buffer{}
	cmd.Stderr = errOut
	return cmd, tmp, errOut
}

// measuredBy runs preforkd lab --json.
func measuredBy(t *testing.T, args ...string) bench.Report {
	t.Helper()
	cmd, tmp, errOut := experiments(t, append(args, "--json")...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errOut)
	}
	var r bench.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	nothingIn(t, tmp)
	return r
}

// again is how often an experiment about cores is made anew that other programs have spoilt by taking
// them.
const again = 5

// shown measures all experiments, and those once more that did not show what they shall.
func shown(t *testing.T) bench.Report {
	t.Helper()
	r := measuredBy(t)
	for range again {
		var args []string
		for _, row := range r.Rows {
			if !row.Here.OK {
				args = append(args, "--only", row.Name)
			}
		}
		if args == nil {
			break
		}
		for _, row := range measuredBy(t, args...).Rows {
			i := slices.IndexFunc(r.Rows, func(old bench.Row) bool { return old.Name == row.Name })
			r.Rows[i] = row
		}
	}
	return r
}

// TestLab: each experiment shows the relation that it shall. Seconds are compared only with what
// cannot be otherwise on any machine.
func TestLab(t *testing.T) {
	r := shown(t)
	want := map[string]string{
		"call-async": "concurrent", "wait-async": "concurrent", "call-sync": "concurrent", "wait-sync": "concurrent", "wait-compute": "sequential",
		"waves": "3 waves", "cpu-async": "interleaved", "cpu-compute": "sequential", "one-core": "interleaved", "two-workers": "parallel",
		"lock-cpu-one": "parallel", "lock-cpu-many": "parallel", "lock-io-one": "concurrent", "lock-io-many": "concurrent", "heavy": "sequential",
	}
	if len(r.Rows) != len(want) {
		t.Errorf("%d rows", len(r.Rows))
	}
	for _, row := range r.Rows {
		expected := want[row.Name]
		if expected == "parallel" && r.Cores < 2 {
			expected = "interleaved"
		}
		if !row.Here.OK || !strings.HasPrefix(row.Expected, expected) || row.Sentence == "" || len(row.Here.Bars) != row.Tasks {
			t.Errorf("%s: expected %q, is %q, want %q", row.Name, row.Expected, row.Here.Relation, expected)
		}
		bound := row.Each // what cannot be less
		switch expected {
		case "sequential", "interleaved":
			bound *= float64(row.Tasks)
		case "3 waves":
			bound *= 3
		}
		if row.Here.Seconds < 0.99*bound {
			t.Errorf("%s, %s: %v s cannot be, %v s at least", row.Name, expected, row.Here.Seconds, bound)
		}
		if row.Tutorial > 0 && row.Tutorial < row.Each && row.Wrong == "" {
			t.Errorf("%s: the tutorial's %v s for %v s is not called impossible", row.Name, row.Tutorial, row.Each)
		}
		if processes := map[string]int{"two-workers": 2, "lock-cpu-many": r.Workers, "lock-io-many": r.Workers}[row.Name]; row.Here.Processes != max(processes, 1) {
			t.Errorf("%s: %d processes answered", row.Name, row.Here.Processes)
		}
	}
}

// TestLabInWords: the table, a sentence and a timeline for each row.
func TestLabInWords(t *testing.T) {
	cmd, tmp, errOut := experiments(t, "--only", "wait-async", "--only", "wait-compute")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errOut)
	}
	for _, want := range []string{"EXPERIMENT", "0.03 (cannot be)", "concurrent: ~ the longest", "yes: sequential", "1 wait-async: Ten waits are no longer than one", "------", "......", "… 5 more"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	nothingIn(t, tmp)
}

// TestLabRefuses what it cannot do, and leaves nothing when it is interrupted.
func TestLabRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
		exit int
	}{
		{[]string{"--only", "nothing"}, "--only nothing is no experiment\n  try: one of call-async, wait-async, ", 64},
		{[]string{"--beside", "django"}, "--beside django is nothing that can be measured", 64},
		{[]string{"--beside", "fastapi", "--python", "/nowhere"}, "--beside fastapi: no fastapi and uvicorn in /nowhere", 69},
		{[]string{"more"}, "unknown argument more", 64},
		{[]string{"--loud"}, "flag provided but not defined: -loud", 64},
	} {
		cmd, tmp, errOut := experiments(t, c.args...)
		if out, err := cmd.Output(); err == nil || cmd.ProcessState.ExitCode() != c.exit || !strings.Contains(errOut.String(), c.want) || len(out) > 0 {
			t.Errorf("%q: %v, want %d: %s%s", c.args, err, c.exit, out, errOut)
		}
		nothingIn(t, tmp)
	}
	cmd, tmp, errOut := experiments(t, "--only", "wait-compute")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if testkit.Await(func() bool {
		found, _ := filepath.Glob(filepath.Join(tmp, "preforkd-lab-*", "service-*", "http"))
		return len(found) == 1
	}) != nil {
		t.Error("no service")
	}
	kill(t, cmd.Process.Pid, syscall.SIGINT)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v: %s", err, errOut)
	}
	nothingIn(t, tmp)
}

// TestLabBesideFastAPI: where it is installed the same experiments show a frozen loop.
func TestLabBesideFastAPI(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import fastapi, uvicorn").Run(); err != nil {
		t.Skip("needs python3-fastapi and python3-uvicorn")
	}
	r := measuredBy(t, "--beside", "fastapi", "--python", python, "--only", "call-async", "--only", "wait-async", "--only", "waves")
	if len(r.Rows) != 3 || !strings.HasPrefix(r.Beside, "FastAPI ") {
		t.Fatalf("%+v", r)
	}
	for _, row := range r.Rows {
		if row.Beside == nil || !row.Beside.OK {
			t.Errorf("%s: %+v", row.Name, row.Beside)
		}
	}
	if frozen := r.Rows[0].Beside; frozen != nil && frozen.Health < 0.5*frozen.Seconds {
		t.Errorf("/healthz took %v s of the %v s for which the loop was frozen", frozen.Health, frozen.Seconds)
	}
}
