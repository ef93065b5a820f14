package e2e

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/supervisor/plan"
	"preforkd/internal/testkit"
)

// measuring is preforkd plan for models, with a temporary directory of its own.
func measuring(t *testing.T, models string, args ...string) (cmd *exec.Cmd, tmp string, errOut *bytes.Buffer) {
	t.Helper()
	tmp = t.TempDir()
	cmd = exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), append([]string{
		"plan", "--models", models, "--set", "cache.dir=" + filepath.Join(testkit.Root(t), ".cache", "test-models"),
	}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "GORACE=atexit_sleep_ms=0", "PREFORKD_LISTEN=127.0.0.1:1", "NOTIFY_SOCKET=/nowhere")
	if os.Getuid() == 0 {
		cmd.Env = append(cmd.Env, testkit.AsRoot)
	}
	errOut = &bytes.Buffer{}
	cmd.Stderr = errOut
	return cmd, tmp, errOut
}

// nothingIn fails if the measurement has left something.
func nothingIn(t *testing.T, tmp string) {
	t.Helper()
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// measured is what the plan's JSON says that was found.
type measured struct {
	Input struct {
		Cores   float64 `json:"cores"`
		Worker  uint64  `json:"worker_bytes"`
		Common  uint64  `json:"common_bytes"`
		Weights uint64  `json:"weights_bytes"`
		Pod     uint64  `json:"pod_bytes"`
		Model   string  `json:"model"`
		Models  []struct {
			Name    string  `json:"name"`
			Latency float64 `json:"latency_seconds"`
			CPU     float64 `json:"cpu_seconds"`
			Layer   string  `json:"layer"`
			Sample  string  `json:"sample"`
		} `json:"models"`
		Steps []struct {
			Workers int     `json:"workers"`
			Rate    float64 `json:"requests_per_second"`
			P99     float64 `json:"p99_seconds"`
			PSS     uint64  `json:"pss_bytes"`
		} `json:"verified"`
		Source string `json:"source"`
	} `json:"input"`
	Best *plan.Layout `json:"recommended"`
	Bend *plan.Bend   `json:"bend"`
	Step plan.Stage   `json:"strategy"`
}

// TestPlanMeasuresAndVerifies asks the real models, in bounds that any machine keeps. A warm-up
// request is what its model is measured with.
func TestPlanMeasuresAndVerifies(t *testing.T) {
	models := copyModels(t)
	warmup := `[{"request":{"inputs":[{"name":"pixels","datatype":"FP32","shape":[1,64],"data":[` + strings.Repeat("1,", 63) + `1]}]}}]`
	if err := os.WriteFile(filepath.Join(models, "digits", "warmup.json"), []byte(warmup), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, tmp, errOut := measuring(t, models, "--json", "--verify", "--model", "digits")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errOut)
	}
	var p measured
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	in := p.Input
	if in.Source != "measured" || in.Model != "digits" || len(in.Models) != 5 || p.Best == nil || in.Cores <= 0 {
		t.Errorf("%s", out)
	}
	for what, n := range map[string]uint64{"worker": in.Worker, "common": in.Common, "pod": in.Pod} {
		if n < 1<<20 || n > 4<<30 {
			t.Errorf("%s: %d bytes", what, n)
		}
	}
	if in.Weights < 1<<10 || in.Weights > 64<<20 { // of models of some kB
		t.Errorf("weights: %d bytes", in.Weights)
	}
	for _, m := range in.Models {
		want := "zeros"
		if m.Name == "digits" {
			want = "its warm-up request"
		}
		if m.Latency <= 0 || m.Latency > 5 || m.CPU <= 0 || m.CPU > 5 || m.Layer != "direct" && m.Latency < 0.05 || m.Sample != want {
			t.Errorf("%+v", m)
		}
	}
	for i, s := range in.Steps {
		if s.Workers != i+1 || s.Rate <= 0 || s.P99 <= 0 || s.PSS < 1<<20 {
			t.Errorf("%+v", s)
		}
	}
	if len(in.Steps) < 2 || p.Bend == nil || p.Step.Now != 2 {
		t.Errorf("%d steps, %+v, %+v", len(in.Steps), p.Bend, p.Step)
	}
	nothingIn(t, tmp)
}

// TestPlanSaysWhyItCannotMeasure in the words of the service that did not start.
func TestPlanSaysWhyItCannotMeasure(t *testing.T) {
	models := copyModels(t)
	for _, c := range []struct {
		name string
		args []string
		want string
		exit int
	}{
		{"a model that is not there", []string{"--model", "nothing"}, "--model: nothing is not in " + models + ", which holds digits, ", 64},
		{"another program", []string{"--set", "worker.command=/bin/true"}, "worker.command is another program", 64},
		{"no library", []string{"--set", "inference.library=/nowhere.so"}, "the service that was to be measured did not start:", 69},
		{"a bad setting", []string{"--set", "workers=none"}, "workers", 78},
	} {
		cmd, tmp, errOut := measuring(t, models, c.args...)
		out, err := cmd.Output()
		if err == nil || cmd.ProcessState.ExitCode() != c.exit || !strings.Contains(errOut.String(), c.want) || len(out) > 0 {
			t.Errorf("%s: %v, want %d and %q: %s%s", c.name, err, c.exit, c.want, out, errOut)
		}
		nothingIn(t, tmp)
	}
}

// TestPlanInterrupted: a signal ends the measurement with its service, and so does the kernel
// when this command is killed.
func TestPlanInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		cmd, tmp, errOut := measuring(t, filepath.Join(testkit.Root(t), "models"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var socket string
		serves := func() bool {
			found, _ := filepath.Glob(filepath.Join(tmp, "preforkd-plan-*", "http"))
			if len(found) != 1 {
				return false
			}
			socket = found[0]
			conn, err := net.Dial("unix", socket)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}
		if err := testkit.Await(serves); err != nil {
			t.Errorf("%v: the service: %v", sig, err)
		}
		kill(t, cmd.Process.Pid, sig)
		if err := cmd.Wait(); err == nil || sig != syscall.SIGKILL && cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%v: %v: %s", sig, err, errOut)
		}
		if err := testkit.Await(func() bool { return !serves() }); err != nil {
			t.Errorf("%v: the service serves on: %v", sig, err)
		}
		if sig != syscall.SIGKILL {
			nothingIn(t, tmp)
		}
	}
}
