package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// weightsOf returns what status says of a model once that many workers have said what they have.
func weightsOf(t *testing.T, socket, model string, workers int) (w admin.Weights) {
	t.Helper()
	if err := testkit.Await(func() bool {
		for _, m := range status1(t, socket).Models {
			if m.Name == model && m.Weights != nil {
				w = *m.Weights
			}
		}
		return w.Workers == workers
	}); err != nil {
		t.Fatalf("%s: %v: %+v", model, err, w)
	}
	return w
}

// weighed is a directory with a model of 16 MiB of weights, a forest and a small model.
func weighed(t *testing.T, n int64) string {
	t.Helper()
	models := wideModels(t, 4, n)
	for _, name := range []string{"digits", "digits-forest"} {
		if err := os.CopyFS(filepath.Join(models, name), os.DirFS(filepath.Join(testkit.Root(t), "models", name))); err != nil {
			t.Fatal(err)
		}
	}
	return models
}

const lostSays = "prepared weights not shared: this worker has a copy of its own"

// TestSharingIsShown: of each model status and metrics say whether its weights are shared. Trees,
// which have nothing to share, are no reason for a warning.
func TestSharingIsShown(t *testing.T) {
	const n = 1024
	address := freeAddress(t)
	s, socket := reloadable(t, testkit.Options{Models: weighed(t, n), Cache: t.TempDir(), Ops: address, Set: []string{"inference.prepare=always"}})
	for range 8 {
		askWide(t, s.URL, n)
	}
	if w := weightsOf(t, socket, "wide", 2); w.Kind != admin.WeightsShared || w.Notice != "" || w.Private < 0 || w.Private > 8<<20 || w.Prepared < 4*4*n*n {
		t.Errorf("wide: %+v", w)
	}
	if w := weightsOf(t, socket, "digits-forest", 2); w.Kind != admin.WeightsGraph || w.Notice != "" || w.Prepared != 0 {
		t.Errorf("digits-forest: %+v", w)
	}
	st := status1(t, socket)
	for _, sl := range st.Pools[0].Slots {
		if sl.Private <= 0 || sl.Shared <= 0 || sl.PSS <= sl.Private {
			t.Errorf("%+v", sl)
		}
	}
	if m := st.Memory; m == nil || m.Limit == 0 || m.PSS <= m.Private || m.Private <= 0 {
		t.Errorf("%+v", m)
	}
	must(t, socket, []string{"status"}, "PRIVATE", "memory is ", "MODEL", "private: in the graph", "shared")
	_, text := get(t, "http://"+address+"/metrics")
	for _, want := range []string{
		`preforkd_model_sharing_lost{model="wide",version="1"} 0`, `preforkd_model_memory_bytes{kind="private",model="digits-forest",version="1"} `,
		`preforkd_workers_memory_bytes{kind="shared"} `, "preforkd_memory_limit_bytes ", "preforkd_memory_level ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	if says(s, lostSays)+says(s, notLoaded) > 0 {
		t.Errorf("%s", s.LogText())
	}
}

// TestLostSharingIsSaid: an entry that is whole and whose keys are those of another engine is
// loaded, and answers as it should; that each worker has packed the weights anew is said.
func TestLostSharingIsSaid(t *testing.T) {
	const n = 1024
	o := testkit.Options{Models: weighed(t, n), Cache: t.TempDir(), Set: []string{"inference.prepare=always"}}
	s, _ := reloadable(t, o)
	want := askWide(t, s.URL, n)
	quits(s)
	spoiled := 0
	for _, entry := range entriesOf(t, o.Cache) {
		if spoilKeys(t, entry) {
			spoiled++
		}
	}
	if spoiled == 0 {
		t.Fatal("no entry has keys")
	}
	s, socket := reloadable(t, o)
	if got := askWide(t, s.URL, n); got != want {
		t.Error("the answers differ")
	}
	if w := weightsOf(t, socket, "wide", 2); w.Kind != admin.WeightsLost || w.Private < 3*4*n*n || !strings.Contains(w.Notice, "packed the weights anew") {
		t.Errorf("%+v", w)
	}
	if w := weightsOf(t, socket, "digits-forest", 2); w.Kind != admin.WeightsGraph || w.Notice != "" {
		t.Errorf("digits-forest: %+v", w)
	}
	if says(s, lostSays) != 2 || says(s, preparedSays) > 0 {
		t.Errorf("%s", s.LogText())
	}
	must(t, socket, []string{"status"}, "NOT SHARED", "model wide version 1: the engine has packed the weights anew")
	must(t, socket, []string{"events"}, "model wide version 1: weights not shared")
}

// packedKey is a key of a packed initializer in a prepared graph; the digits are a digest.
var packedKey = regexp.MustCompile(`[A-Za-z]+\+[0-9]{3,20}\|[0-9]`)

// spoilKeys gives the packed weights of an entry keys that no engine looks for, and tells whether it
// had any. The entry is as whole as before.
func spoilKeys(t *testing.T, entry string) bool {
	t.Helper()
	graph := filepath.Join(entry, "model.onnx")
	data, err := os.ReadFile(graph)
	if err != nil {
		t.Fatal(err)
	}
	found := packedKey.FindAllIndex(data, -1)
	before := fmt.Sprintf("%x", sha256.Sum256(data))
	for _, at := range found {
		digit := at[0] + strings.IndexByte(string(data[at[0]:at[1]]), '+') + 2
		data[digit] = '0' + (data[digit]-'0'+1)%10
	}
	sums := filepath.Join(entry, "SHA256SUMS")
	text, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	write(t, graph, string(data))
	write(t, sums, strings.Replace(string(text), before, fmt.Sprintf("%x", sha256.Sum256(data)), 1))
	return len(found) > 0
}

// TestDamagedEntryIsMadeAnew: a supervisor that takes a service over whose workers have died as
// well finds the entry damaged. Its workers serve copies; the entry is made anew meanwhile, and
// the next worker loads it.
func TestDamagedEntryIsMadeAnew(t *testing.T) {
	const n = 512
	o := testkit.Options{Models: wideModels(t, 1, n), Cache: t.TempDir()}
	s, socket := reloadable(t, o)
	want := askWide(t, s.URL, n)
	entry := entriesOf(t, o.Cache)[0]
	if err := os.Remove(filepath.Join(entry, "weights.bin")); err != nil {
		t.Fatal(err)
	}
	old := s.Supervisor()
	for _, pid := range append(s.Workers(), old) {
		kill(t, pid, syscall.SIGKILL)
	}
	if err := testkit.Await(func() bool { return s.Supervisor() != old && says(s, preparedSays) == 2 }); err != nil {
		t.Fatalf("%v\n%s", err, s.LogText())
	}
	if err := testkit.Await(func() bool { return allReady(status1(t, socket)) }); err != nil {
		t.Fatalf("%v: %+v", err, status1(t, socket))
	}
	if got := askWide(t, s.URL, n); got != want {
		t.Error("the answers differ")
	}
	must(t, socket, []string{"restart", "--all"}, "restarted 2")
	for _, sl := range status1(t, socket).Pools[0].Slots {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", sl.PID))
		if err != nil || !strings.Contains(string(text), entry+"/weights.bin") {
			t.Errorf("slot %d has weights of its own: %v", sl.Index, err)
		}
	}
	if w := weightsOf(t, socket, "wide", 2); w.Kind != admin.WeightsShared || w.Notice != "" {
		t.Errorf("%+v", w)
	}
	if got := askWide(t, s.URL, n); got != want || says(s, notPrepared) > 0 || says(s, "preparing a model anew: a worker could not load what was prepared") != 1 {
		t.Errorf("the answer is as it was: %v\n%s", got == want, s.LogText())
	}
}
