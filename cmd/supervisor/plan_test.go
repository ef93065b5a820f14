package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/plan"
)

var update = flag.Bool("update", false, "write the golden files")

// planned runs preforkd plan with the arguments in words.
func planned(t *testing.T, args string) (string, error) {
	t.Helper()
	var out, errOut bytes.Buffer
	err := run(t.Context(), append([]string{"preforkd", "plan"}, strings.Fields(args)...), &out, &errOut)
	return out.String(), err
}

// TestPlanOfGivenNumbers compares whole outputs with the files of testdata/plan.
func TestPlanOfGivenNumbers(t *testing.T) {
	for name, args := range map[string]string{
		"tutorial":   "--cores 8 --memory 16GiB --model-memory 2GiB --latency 40ms",
		"copies":     "--cores 8 --memory 16GiB --model-memory 2GiB --latency 40ms --weights copies --price-per-core-hour 0.05",
		"rate":       "--cores 8 --memory 64GiB --model-memory 500MiB --latency 80ms --cpu 60ms --rate 400 --p99 250ms --price-per-core-hour 0.05",
		"tasks":      "--cores 2.5 --memory 8GiB --model-memory 500MiB --latency 2s --p99 1s --rate 10",
		"prime":      "--cores 7 --memory 32GiB --model-memory 200MB --latency 5ms",
		"capacity":   "--pods 3 --workers 4",
		"kubernetes": "--cores 8 --memory 16GiB --model-memory 2GiB --latency 40ms --kubernetes",
		"json":       "--cores 2 --memory 4GiB --model-memory 100MiB --latency 10ms --rate 50 --json",
	} {
		got, err := planned(t, args)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		file := filepath.Join("testdata", "plan", name+".txt")
		got = "$ preforkd plan " + args + "\n" + got
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || string(want) != got {
			t.Errorf("%s: %v; go test ./cmd/supervisor -update writes the file anew\n%s", name, err, got)
		}
	}
}

// TestPlanThatDoesNotFit says so in each form, and ends with 78.
func TestPlanThatDoesNotFit(t *testing.T) {
	const args = "--cores 8 --memory 4GiB --model-memory 2GiB --latency 40ms"
	for _, form := range []string{"", " --json", " --kubernetes"} {
		out, err := planned(t, args+form)
		if f := (*ipc.Failure)(nil); !errors.As(err, &f) || f.Exit != ipc.ExitConfig || !strings.Contains(f.What, "not even one worker fits: with its pod and a reload it needs 4.2 GiB, and 3.0 GiB of 4.0 GiB are for it") {
			t.Errorf("%s: %v", form, err)
		}
		if form == " --json" {
			var r struct {
				Layouts []plan.Layout `json:"layouts"`
				Best    *plan.Layout  `json:"recommended"`
			}
			if err := json.Unmarshal([]byte(out), &r); err != nil || r.Best != nil || len(r.Layouts) != 4 || r.Layouts[0].Short == 0 {
				t.Errorf("%v: %s", err, out)
			}
		}
		if form == " --kubernetes" && out != "" {
			t.Errorf("a manifest: %s", out)
		}
	}
}

func TestPlanRefusals(t *testing.T) {
	const whole = "--cores 8 --memory 16GiB --model-memory 2GiB --latency 40ms "
	for args, want := range map[string]string{
		"--cores 0 --latency 1s --model-memory 1GiB":    "--cores is out of range",
		"--cores NaN --latency 1s --model-memory 1GiB":  "--cores is out of range",
		"--cores +Inf --latency 1s --model-memory 1GiB": "--cores is out of range",
		"--cores 0.001":                    "less than a hundredth",
		"--cores eight":                    "invalid value",
		whole + "--rate -1":                "--rate is out of range",
		whole + "--p99 0s":                 "--p99 is out of range",
		whole + "--p99 48h":                "--p99 is out of range",
		whole + "--price-per-core-hour -1": "--price-per-core-hour is out of range",
		whole + "--cpu 50ms":               "--cpu is more than --latency",
		whole + "--weights both":           "shared or copies",
		whole + "--verify":                 "--verify measures",
		whole + "--models x":               "--models measures",
		whole + "--json --kubernetes":      "two forms",
		whole + "rest":                     "unknown argument rest",
		"--latency 40ms":                   "belong together",
		"--model-memory 1GiB":              "belong together",
		"--pods 3":                         "belong together",
		"--workers 3":                      "belong together",
		"--pods 0 --workers 4":             "--pods is out of range",
		"--pods 3 --workers 4 --waits 0":   "--waits is out of range",
		"--weights shared":                 "--weights is measured here",
		"--cpu 1ms":                        "--cpu is measured here",
		"--latency 40ms --model-memory 0":  "--model-memory 0 is out of range",
		"--latency 40ms --model-memory -1": "--model-memory -1 is out of range",
		"--latency 40ms --model-memory 2Gb/s --memory 1GiB":   "is not a size",
		"--latency 40ms --model-memory 2TiB --memory 4096TiB": "--memory 4096TiB is out of range",
	} {
		out, err := planned(t, args)
		if f := (*ipc.Failure)(nil); !errors.As(err, &f) || f.Exit != ipc.ExitUsage || f.Try == "" || !strings.Contains(f.What, want) || out != "" {
			t.Errorf("%s: %v, %q, want %q", args, err, out, want)
		}
	}
}

// TestEncode: zeros of the smallest size that a shape takes, empty strings among them.
func TestEncode(t *testing.T) {
	got, err := encode("/x", []tensor{
		{Name: "a", DataType: "FP32", Shape: []int64{-1, 3}},
		{Name: "b", DataType: "BYTES", Shape: []int64{2}},
		{Name: "c", DataType: "INT64", Shape: []int64{}, data: []byte{1, 0, 0, 0, 0, 0, 0, 0}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const head = `{"inputs":[{"name":"a","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}},{"name":"b","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":8}},{"name":"c","datatype":"INT64","shape":[],"parameters":{"binary_data_size":8}}]}`
	if want := head + strings.Repeat("\x00", 20) + "\x01" + strings.Repeat("\x00", 7); !strings.HasSuffix(string(got), "\r\n\r\n"+want) {
		t.Errorf("%q", got)
	}
	for _, in := range []tensor{{DataType: "FP8", Shape: []int64{1}}, {DataType: "FP64", Shape: []int64{1 << 30, 1 << 30, 1 << 30}}, {DataType: "FP64", Shape: []int64{1 << 62, 4}}} {
		if got, err := encode("/x", []tensor{in}); err == nil {
			t.Errorf("%+v: %d bytes", in, len(got))
		}
	}
}

func TestTrialEnv(t *testing.T) {
	got := trialEnv([]string{"PATH=/bin", "PREFORKD_WORKERS=9", "NOTIFY_SOCKET=@x", "LISTEN_FDS=1", "LISTEN_PID=2", "WATCHDOG_USEC=1", "HOME=/"})
	if want := []string{"PATH=/bin", "HOME=/"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
