package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// operatorCase is one of cases.json of scripts/onnx-node-cases.py.
type operatorCase struct {
	Name       string
	RTol, ATol float64
	Random     bool // its outputs are random numbers
	Sets       []struct{ Inputs, Outputs []caseTensor }
}

// skippedFile has the cases that are not passed, each with its reason after a tab, and a note for
// the reader after another where the reason does not say enough.
const skippedFile = "testdata/onnx-skipped.txt"

// skip is a line of it.
type skip struct{ reason, note string }

// TestONNXOperators sends what ONNX says that its operators are given, in binary form, and
// compares the answers with what it says that they return. The cases that fail, and why, are
// those of skippedFile, neither more nor less.
func TestONNXOperators(t *testing.T) {
	dir := t.TempDir()
	cases := operatorCases(t, dir)
	skipped := readSkipped(t)
	good := filepath.Join(dir, "models")
	o := operatorOptions(t, filepath.Join(dir, "bad"), operatorLocale(t))
	refused := refusedModels(t, good, o, skipped)
	o.Models = good
	s := testkit.Start(t, o)
	c := newV2Client(s.URL)
	defer c.http.CloseIdleConnections()
	passed, ran, sets := 0, 0, 0
	reasons := maps.Clone(refused)
	began := time.Now()
	for _, one := range cases {
		if refused[one.Name] != "" {
			continue
		}
		ran++
		sets += len(one.Sets)
		if why := one.check(c); why != "" {
			reasons[one.Name] = why
			continue
		}
		passed++
	}
	t.Logf("%d cases: %d run with %d data sets in %v, %d passed, %d skipped",
		len(cases), ran, sets, time.Since(began).Round(time.Millisecond), passed, len(reasons))
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		t.Log("skipped:", name+":", reasons[name], skipped[name].note)
	}
	compareSkipped(t, reasons, skipped)
}

// operatorCases makes the models in dir/models and returns the cases.
func operatorCases(t *testing.T, dir string) (cases []operatorCase) {
	t.Helper()
	if out, err := exec.Command(python, "-c", "import onnx, numpy").CombinedOutput(); err != nil {
		t.Skipf("the cases are those of Debian's python3-onnx (apt-get install python3-onnx python3-numpy): %v: %s", err, out)
	}
	script := filepath.Join(testkit.Root(t), "scripts/onnx-node-cases.py")
	if out, err := exec.Command(python, script, dir).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("there are no cases")
	}
	return cases
}

// operatorLocale makes the locale that StringNormalizer asks for and returns the directory that it
// is in, for LOCPATH (locale(7)).
func operatorLocale(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("localedef", "-i", "en_US", "-f", "UTF-8", filepath.Join(dir, "en_US.UTF-8")).CombinedOutput(); err != nil {
		t.Skipf("StringNormalizer needs a locale (apt-get install locales): %v: %s", err, out)
	}
	return dir
}

// operatorOptions are those of a service with the models in dir.
func operatorOptions(t *testing.T, dir, locale string) testkit.Options {
	t.Helper()
	return testkit.Options{
		Models: dir, Cache: filepath.Join(t.TempDir(), "cache"), Workers: 1,
		Set: []string{"timeouts.boot=60s"}, Env: []string{"LOCPATH=" + locale},
	}
}

// badModel is a line of what a service says of models that it cannot load.
var badModel = regexp.MustCompile(`(?m)^(?:preforkd: |  )?load model "([^"]+)" version 1 from [^:]+: (.*)$`)

// refusedModels moves the models of skipped from good to those of o, starts a service with these,
// which has to refuse some, and moves the others back. It returns the reasons.
func refusedModels(t *testing.T, good string, o testkit.Options, skipped map[string]skip) map[string]string {
	t.Helper()
	bad := o.Models
	if err := os.Mkdir(bad, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range skipped {
		err := os.Rename(filepath.Join(good, name), filepath.Join(bad, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // what is not there compareSkipped finds
			t.Fatal(err)
		}
	}
	s := testkit.Launch(t, o)
	if status := s.Wait(); status != ipc.ExitBoot {
		t.Fatalf("exit status %d, want %d", status, ipc.ExitBoot)
	}
	refused := map[string]string{}
	for _, m := range badModel.FindAllStringSubmatch(s.LogText(), -1) {
		refused[m[1]] = m[2]
	}
	left, err := os.ReadDir(bad)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if refused[entry.Name()] != "" {
			continue
		}
		if err := os.Rename(filepath.Join(bad, entry.Name()), filepath.Join(good, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return refused
}

func readSkipped(t *testing.T) map[string]skip {
	t.Helper()
	data, err := os.ReadFile(skippedFile)
	if err != nil {
		t.Fatal(err)
	}
	skipped := map[string]skip{}
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		name, reason, ok := strings.Cut(line, "\t")
		if _, twice := skipped[name]; !ok || twice {
			t.Fatalf("%s:%d: %q is no new name and reason with a tab between", skippedFile, i+1, line)
		}
		reason, note, _ := strings.Cut(reason, "\t")
		skipped[name] = skip{reason, note}
	}
	return skipped
}

// compareSkipped demands that the cases which did not pass are those that are known.
func compareSkipped(t *testing.T, got map[string]string, want map[string]skip) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name].reason != got[name] {
			t.Errorf("%s: %s\n%s says %q", name, got[name], skippedFile, want[name].reason)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] == "" {
			t.Errorf("%s: passed, or there is none, and %s says %q", name, skippedFile, want[name].reason)
		}
	}
}

// check sends each data set and returns why an answer is not the expected one; empty: all are.
func (o *operatorCase) check(c *v2Client) (why string) {
	for _, set := range o.Sets {
		answer, err := c.infer(o.Name, set.Inputs)
		if err != nil {
			return err.Error()
		}
		if len(answer) != len(set.Outputs) {
			return fmt.Sprintf("%d outputs, want %d", len(answer), len(set.Outputs))
		}
		for i := range set.Outputs {
			want := &set.Outputs[i]
			why := differsInForm(&answer[i], want)
			if why == "" && !o.Random {
				why = differsInValues(&answer[i], want, o.RTol, o.ATol)
			}
			if why != "" {
				return fmt.Sprintf("output %q: %s", want.Name, why)
			}
		}
	}
	if o.Random {
		return "random numbers: only datatypes and shapes were compared"
	}
	return ""
}
