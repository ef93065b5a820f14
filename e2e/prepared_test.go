package e2e

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// wide is a model of layers of n×n weights, from x to y, both of shape [1, n].
func wide(layers int, n int64) []byte {
	var consts, nodes [][]byte
	from := "x"
	for layer := range layers {
		raw := make([]byte, 4*n*n)
		for i := range n * n {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(float32((i*7919+int64(layer))%2001-1000)/1e5))
		}
		name, to := fmt.Sprint("w", layer), fmt.Sprint("h", layer)
		if layer == layers-1 {
			to = "y"
		}
		shape := field(field(nil, 1, n), 1, n)
		consts = append(consts, part(part(field(shape, 2, onnxFloat), 8, []byte(name)), 9, raw))
		nodes = append(nodes, operator("MatMul", to, from, name))
		from = to
	}
	return graphOf(consts, [][]byte{tensorOf("x", onnxFloat, 1, n)}, [][]byte{tensorOf("y", onnxFloat, 1, n)}, nodes...)
}

// wideModels is a directory with that model.
func wideModels(t *testing.T, layers int, n int64) string {
	t.Helper()
	dir := t.TempDir()
	putWide(t, dir, layers, n)
	return dir
}

func putWide(t *testing.T, dir string, layers int, n int64) {
	t.Helper()
	dir = filepath.Join(dir, "wide/1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "model.onnx"), string(wide(layers, n)))
}

// askWide returns its answer.
func askWide(t *testing.T, url string, n int64) string {
	t.Helper()
	data := strings.TrimSuffix(strings.Repeat("0.5,-1,", int(n/2)), ",")
	status, text := post(t, url+"/v2/models/wide/infer", fmt.Sprintf(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1,%d],"data":[%s]}]}`, n, data))
	if status != 200 {
		t.Fatalf("%d: %.300s", status, text)
	}
	return text
}

// says counts the records of the log with that message.
func says(s *testkit.Service, message string) int {
	return strings.Count(s.LogText(), `msg="`+message+`"`)
}

const (
	preparedSays = "model prepared"
	notPrepared  = "model not prepared: each worker has its weights to itself"
	notLoaded    = "prepared model not loaded: this worker has its weights to itself"
)

// quits stops s.
func quits(s *testkit.Service) {
	s.Signal(syscall.SIGTERM)
	s.Wait()
}

// entriesOf returns what is in the cache of prepared models but its lock.
func entriesOf(t *testing.T, cache string) (paths []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(cache, "prepared"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name() != ".turn" {
			paths = append(paths, filepath.Join(cache, "prepared", e.Name()))
		}
	}
	return paths
}

// TestPreparedAnswers: prepared models answer as plain ones do, to the last bit, and a second
// start prepares none.
func TestPreparedAnswers(t *testing.T) {
	set := digits.Load(t)
	cache := t.TempDir()
	want := map[string][]mixedAnswer{}
	for i, how := range []string{"off", "always", "always", "auto"} {
		s := testkit.Start(t, testkit.Options{Cache: cache, Set: []string{"inference.prepare=" + how}})
		c := &mixed{set, newV2Client(s.URL)}
		for _, model := range mixedModels {
			for block := range len(set.Pixels) / mixedBlock {
				got, err := c.askBinary(model, block)
				if err != nil {
					t.Fatalf("%s, block %d: %v", model, block, err)
				}
				if how == "off" {
					want[model] = append(want[model], got)
				} else if !got.equal(want[model][block]) {
					t.Errorf("%s, block %d: %v, prepared %v", model, block, want[model][block], got)
				}
			}
		}
		c.v2.http.CloseIdleConnections()
		made := 0
		if i == 1 {
			made = len(mixedModels)
		}
		if got := says(s, preparedSays); got != made || says(s, notPrepared)+says(s, notLoaded) > 0 {
			t.Errorf("start %d: %d models prepared, want %d\n%s", i, got, made, s.LogText())
		}
		quits(s)
	}
}

// TestPreparedWeightsAreShared: four workers hold little more than one copy.
func TestPreparedWeightsAreShared(t *testing.T) {
	const n, workers = 2048, 4
	models := wideModels(t, 4, n) // of 16 MiB each
	memory, answers := map[string]int{}, map[string]string{}
	for _, how := range []string{"off", "auto"} {
		s := testkit.Start(t, testkit.Options{Models: models, Cache: t.TempDir(), Workers: workers, Set: []string{"inference.prepare=" + how}})
		for range 8 * workers { // so that each has touched its weights
			answers[how] = askWide(t, s.URL, n)
		}
		for _, pid := range s.Workers() {
			memory[how] += pss(t, pid)
		}
		quits(s)
	}
	t.Logf("%d workers: %d MiB plain, %d MiB prepared", workers, memory["off"]>>20, memory["auto"]>>20)
	if memory["off"]-memory["auto"] < 2*64<<20 { // of the three copies that there are too many
		t.Errorf("%d workers: %d MiB plain, %d MiB prepared", workers, memory["off"]>>20, memory["auto"]>>20)
	}
	if answers["off"] != answers["auto"] {
		t.Error("the answers differ")
	}
}

// pss is the memory of a process, of what it shares its part (proc_pid_smaps(5)).
func pss(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestPreparedDamage: what has changed in the cache between two runs, or goes on changing, is
// found and made anew.
func TestPreparedDamage(t *testing.T) {
	const n = 512
	models, cache := wideModels(t, 1, n), t.TempDir()
	o := testkit.Options{Models: models, Cache: cache}
	s := testkit.Start(t, o)
	want := askWide(t, s.URL, n)
	quits(s)
	weights := filepath.Join(entriesOf(t, cache)[0], "weights.bin")
	for name, damage := range map[string]func() error{
		"a bit": func() error {
			data, err := os.ReadFile(weights)
			if err == nil {
				data[len(data)/2] ^= 0x40
				err = os.WriteFile(weights, data, 0o640)
			}
			return err
		},
		"the end": func() error { return os.Truncate(weights, n*n) },
		"a file":  func() error { return os.Remove(weights) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		s := testkit.Start(t, o)
		if got := askWide(t, s.URL, n); got != want || says(s, preparedSays) != 1 || says(s, notLoaded) > 0 {
			t.Errorf("%s: the answer is as it was: %v\n%s", name, got == want, s.LogText())
		}
		quits(s)
	}
	if left := entriesOf(t, cache); len(left) != 1 {
		t.Errorf("%q", left)
	}
	s, socket := reloadable(t, o) // and while it runs: a worker that is started takes the copy
	if err := os.Truncate(weights, n); err != nil {
		t.Fatal(err)
	}
	must(t, socket, []string{"reload"}, "serves")
	if got := askWide(t, s.URL, n); got != want || says(s, preparedSays) != 1 {
		t.Errorf("reload: the answer is as it was: %v\n%s", got == want, s.LogText())
	}
}

func realWorker(t *testing.T) string { return filepath.Join(testkit.Programs(t), "preforkd-worker") }

// preparingBy returns the path of a preforkd whose models are prepared by a script's commands.
func preparingBy(t *testing.T, commands string) string {
	t.Helper()
	dir := installation(t)
	worker := filepath.Join(dir, "preforkd-worker")
	if err := os.Remove(worker); err != nil { // else the programs of all tests change
		t.Fatal(err)
	}
	text := "#!/bin/sh\n[ \"$1\" != prepare ] || { " + commands + "; exit; }\nexec " + realWorker(t) + "\n"
	if err := os.WriteFile(worker, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "preforkd")
}

// TestPreparerIsSlow: its clock is that of a worker's boot.
func TestPreparerIsSlow(t *testing.T) {
	cache := t.TempDir()
	s := testkit.Start(t, testkit.Options{
		Models: wideModels(t, 1, 512), Cache: cache, Program: preparingBy(t, "sleep 1000"), Set: []string{"timeouts.boot=5s"},
	})
	if left := entriesOf(t, cache); len(left) > 0 || says(s, notPrepared) != 1 || !strings.Contains(s.LogText(), "it took longer than timeouts.boot, 5s") {
		t.Errorf("%q\n%s", left, s.LogText())
	}
}

// TestPreparerIsKilled after it has written everything: none of that is used, and the service
// starts without.
func TestPreparerIsKilled(t *testing.T) {
	const n = 512
	models, cache, gate := wideModels(t, 1, n), t.TempDir(), filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	program := preparingBy(t, realWorker(t)+` "$@"; echo $$ >`+gate+`; read -r _ <`+gate)
	s := testkit.Launch(t, testkit.Options{Models: models, Cache: cache, Program: program})
	said, err := os.ReadFile(gate)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(said)))
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(cache, "prepared/.new-*/files/model.onnx")); len(found) != 1 {
		t.Errorf("%q has been written", found)
	}
	kill(t, pid, syscall.SIGKILL)
	s.Await("READY=1")
	if left := entriesOf(t, cache); len(left) > 0 || says(s, notPrepared) != 1 || !strings.Contains(s.LogText(), "killed by signal 9") {
		t.Errorf("%q\n%s", left, s.LogText())
	}
	s.Signal(syscall.SIGTERM)
	s.Wait()
}

// TestStopWhilePreparing: a service that is told to stop does not wait for a model to be prepared.
func TestStopWhilePreparing(t *testing.T) {
	models, gate := wideModels(t, 1, 512), filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	program := preparingBy(t, "echo >"+gate+"; exec sleep 1000")
	cache := t.TempDir()
	s := testkit.Launch(t, testkit.Options{Models: models, Cache: cache, Program: program})
	if _, err := os.ReadFile(gate); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGTERM)
	s.Wait()
	if left := entriesOf(t, cache); len(left) > 0 || says(s, notPrepared) > 0 {
		t.Errorf("%q\n%s", left, s.LogText())
	}
}

// TestTwoPrepareAtOnce: two services that have a cache in common prepare once.
func TestTwoPrepareAtOnce(t *testing.T) {
	const n = 1024
	o := testkit.Options{Models: wideModels(t, 1, n), Cache: t.TempDir()}
	a, b := testkit.Launch(t, o), testkit.Launch(t, o)
	a.Await("READY=1")
	b.Await("READY=1")
	if made := says(a, preparedSays) + says(b, preparedSays); made != 1 || says(a, notPrepared)+says(b, notPrepared) > 0 || len(entriesOf(t, o.Cache)) != 1 {
		t.Errorf("prepared %d times\n%s%s", made, a.LogText(), b.LogText())
	}
}

// TestNowhereToPrepare: a disk without room and a directory that cannot be written cost memory
// and a warning.
func TestNowhereToPrepare(t *testing.T) {
	const n = 512
	models := wideModels(t, 1, n) // 1 MiB, and two in what is prepared
	full := t.TempDir()
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=1600k"); err != nil {
		t.Skipf("mount a file system of 1.6 MB: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(full, unix.MNT_DETACH) })
	barred := t.TempDir()
	write(t, filepath.Join(barred, "prepared"), "no directory")
	for name, cache := range map[string]string{"full": full, "barred": barred} {
		s := testkit.Start(t, testkit.Options{Models: models, Cache: cache})
		askWide(t, s.URL, n)
		if says(s, notPrepared) != 1 || says(s, preparedSays) > 0 || !strings.Contains(s.LogText(), "workers=2") {
			t.Errorf("%s: %s", name, s.LogText())
		}
		quits(s)
	}
	if left := entriesOf(t, full); len(left) > 0 {
		t.Errorf("%q", left)
	}
}

// TestModelsAreLoadedPrepared: by a change of models as well.
func TestModelsAreLoadedPrepared(t *testing.T) {
	const n = 512
	f := controlled(t, testkit.Options{Cache: t.TempDir()})
	putWide(t, f.models, 1, n)
	must(t, f.socket, []string{"models", "load", "wide"}, "wide")
	askWide(t, f.URL, n)
	if says(f.Service, preparedSays) != 1 || says(f.Service, notPrepared)+says(f.Service, notLoaded) > 0 {
		t.Errorf("%s", f.LogText())
	}
	mapped := 0
	for _, pid := range f.Workers() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err == nil && strings.Contains(string(text), "/weights.bin") {
			mapped++
		}
	}
	if mapped != 2 {
		t.Errorf("%d workers map the weights", mapped)
	}
	killSupervisor(t, f.Service, f.socket) // what was loaded prepared is so after its death, and a worker's
	victim := f.worker(f.generation(), 0)
	kill(t, victim, syscall.SIGKILL)
	testkit.Gone(t, victim)
	f.whole()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", f.worker(f.generation(), 0)))
	if err != nil || !strings.Contains(string(text), "/weights.bin") {
		t.Errorf("the next worker has weights of its own: %v", err)
	}
	must(t, f.socket, []string{"models", "unload", "wide"}, "wide")
	must(t, f.socket, []string{"models", "load", "wide"}, "wide")
	if says(f.Service, preparedSays) != 1 {
		t.Errorf("what is there was not used\n%s", f.LogText())
	}
}

// TestModelsPrepare: what the command has prepared a start finds.
func TestModelsPrepare(t *testing.T) {
	const n = 512
	models, cache := wideModels(t, 1, n), t.TempDir()
	if err := os.CopyFS(filepath.Join(models, "digits"), os.DirFS(filepath.Join(testkit.Root(t), "models/digits"))); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PREFORKD_USER", "")
	if os.Getuid() == 0 {
		t.Setenv("PREFORKD_USER", "root")
	}
	prepare := func(want int, words []string, args ...string) {
		t.Helper()
		args = append([]string{"models", "prepare"}, append(args, "--models", models, "--set", "cache.dir="+cache)...)
		out, status := run(t, filepath.Join(testkit.Programs(t), "preforkd"), args...)
		for _, word := range words {
			if status != want || !strings.Contains(out, word) {
				t.Errorf("%q: %d: %s", args, status, out)
			}
		}
	}
	prepare(0, []string{"digits 1: left as it is", "wide 1: prepared, "})
	prepare(0, []string{"wide 1: prepared, "}, "wide")
	prepare(64, []string{`there is no model "nope"`}, "nope")
	prepare(1, []string{"wide 1: not prepared", "custom operators from /dev/null"}, "wide", "--set", "inference.custom_ops=/dev/null")
	s := testkit.Start(t, testkit.Options{Models: models, Cache: cache})
	if says(s, preparedSays)+says(s, notPrepared) > 0 {
		t.Errorf("%s", s.LogText())
	}
}
