package onnx

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/testkit/digits"
)

// prepare prepares the model at path and loads the result for the duration of the test.
func prepare(t testing.TB, e inference.Engine, path string) (m inference.Model, dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := e.Prepare(path, dir); err != nil {
		t.Fatal(err)
	}
	m, err := e.LoadPrepared(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, dir
}

// TestPreparedAnswersAlike: to the last bit, whatever the batch.
func TestPreparedAnswersAlike(t *testing.T) {
	e, set := open(t), digits.Load(t)
	for _, name := range append(slices.Clone(digits.Names), "digits-int8") {
		t.Run(name, func(t *testing.T) {
			plain := mustLoad(t, e, modelFile(set, name))
			made, _ := prepare(t, e, modelFile(set, name))
			if !slices.EqualFunc(plain.Inputs(), made.Inputs(), sameTensor) || !slices.EqualFunc(plain.Outputs(), made.Outputs(), sameTensor) {
				t.Errorf("inputs %v and outputs %v, prepared %v and %v", plain.Inputs(), plain.Outputs(), made.Inputs(), made.Outputs())
			}
			in, want, got := make([]inference.Tensor, 1), make([]inference.Tensor, 2), make([]inference.Tensor, 2)
			for _, batch := range []int{1, 7, digits.Samples} {
				for from := 0; from < digits.Samples; from += batch {
					pixels(t, &in[0], set, from, min(from+batch, digits.Samples))
					if err := plain.Run(in, want); err != nil {
						t.Fatal(err)
					}
					if err := made.Run(in, got); err != nil {
						t.Fatal(err)
					}
					for i := range want {
						if got[i].Name != want[i].Name || !slices.Equal(got[i].Shape, want[i].Shape) || !bytes.Equal(got[i].Raw(), want[i].Raw()) {
							t.Fatalf("batch %d from %d: output %q differs", batch, from, want[i].Name)
						}
					}
				}
			}
		})
	}
}

// weighty is a model of some layers of n×n weights.
func weighty(n int64) graph {
	g := graph{inputs: []value{{"x", float, []int64{-1, n}}}}
	from := "x"
	for _, layer := range []string{"a", "b", "c"} {
		w := make([]float32, n*n)
		for i := range w {
			w[i] = float32((i*7919+len(g.nodes))%2001-1000) / 1e5
		}
		g.consts = append(g.consts, literal{name: "w" + layer, code: float, shape: []int64{n, n}, floats: w})
		g.nodes = append(g.nodes, node{op: "MatMul", in: []string{from, "w" + layer}, out: []string{"h" + layer}}, node{op: "Relu", in: []string{"h" + layer}, out: []string{layer}})
		from = layer
	}
	g.outputs = []value{{from, float, []int64{-1, n}}}
	return g
}

// TestPreparedWeightsAreMapped: they lie in the file, which the process maps and need not
// read, and none of their own memory.
func TestPreparedWeightsAreMapped(t *testing.T) {
	const n = 1024
	e := open(t)
	path := weighty(n).write(t)
	m, dir := prepare(t, e, path)
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(maps), filepath.Join(dir, preparedWeights)); got == 0 {
		t.Errorf("nothing of %s is mapped", preparedWeights)
	}
	if info, err := os.Stat(filepath.Join(dir, preparedWeights)); err != nil || info.Size() < 3*n*n*4 {
		t.Errorf("the weights' file: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(dir, preparedGraph)); err != nil || info.Size() > 100_000 {
		t.Errorf("the graph's file: %v, %v", info, err)
	}
	plain := mustLoad(t, e, path)
	in := []inference.Tensor{floats(t, []int64{2, n}, slices.Repeat([]float32{0.25, -1, 3}, 2*n/3)...)}
	want, got := make([]inference.Tensor, 1), make([]inference.Tensor, 1)
	for range 2 {
		if err := plain.Run(in, want); err != nil {
			t.Fatal(err)
		}
		if err := m.Run(in, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want[0].Raw(), got[0].Raw()) {
			t.Error("the answers differ")
		}
	}
}

// TestPrepareOdd: models whose inputs, types or sizes are unusual.
func TestPrepareOdd(t *testing.T) {
	e := open(t)
	for name, g := range map[string]graph{
		"no weights": {
			nodes:  []node{{op: "Add", in: []string{"x", "x"}, out: []string{"y"}}},
			inputs: []value{{"x", float, []int64{-1}}}, outputs: []value{{"y", float, []int64{-1}}},
		},
		"a weight that may be replaced": {
			nodes:  []node{{op: "Add", in: []string{"x", "w"}, out: []string{"y"}}},
			consts: []literal{{name: "w", code: float, shape: []int64{1}, floats: []float32{1}}},
			inputs: []value{{"x", float, []int64{-1}}, {"w", float, []int64{1}}}, outputs: []value{{"y", float, []int64{-1}}},
		},
		"strings": {
			nodes:  []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}},
			inputs: []value{{"x", text, []int64{-1}}}, outputs: []value{{"y", text, []int64{-1}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := g.write(t)
			plain := mustLoad(t, e, path)
			made, _ := prepare(t, e, path)
			if len(made.Inputs()) != len(plain.Inputs()) || made.Inputs()[len(made.Inputs())-1].Optional != plain.Inputs()[len(plain.Inputs())-1].Optional {
				t.Errorf("inputs %v, prepared %v", plain.Inputs(), made.Inputs())
			}
		})
	}
}

func TestPrepareRefuses(t *testing.T) {
	e := open(t)
	broken := filepath.Join(t.TempDir(), "broken.onnx")
	if err := os.WriteFile(broken, []byte("no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	good := weighty(16).write(t)
	for name, c := range map[string]struct{ path, dir, want string }{
		"not there":       {filepath.Join(t.TempDir(), "none"), t.TempDir(), "no such file"},
		"no model":        {broken, t.TempDir(), "protobuf"},
		"nowhere to":      {good, filepath.Join(t.TempDir(), "none"), ""},
		"name with a NUL": {good, "a\x00b", "NUL"},
	} {
		if err := e.Prepare(c.path, c.dir); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.LoadPrepared(t.TempDir()); err == nil {
		t.Error("an empty directory is loaded")
	}
}

func BenchmarkLoadPrepared(b *testing.B) {
	e := open(b)
	path := weighty(2048).write(b)
	dir := b.TempDir()
	if err := e.Prepare(path, dir); err != nil {
		b.Fatal(err)
	}
	for name, load := range map[string]func() (inference.Model, error){
		"plain":    func() (inference.Model, error) { return e.Load(path) },
		"prepared": func() (inference.Model, error) { return e.LoadPrepared(dir) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				m, err := load()
				if err != nil {
					b.Fatal(err)
				}
				m.Close()
			}
		})
	}
}

// TestPreparedShortened: weights that end too early are an error, never a fault of the process.
func TestPreparedShortened(t *testing.T) {
	e := open(t)
	dir := t.TempDir()
	if err := e.Prepare(weighty(256).write(t), dir); err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(dir, preparedWeights)
	info, err := os.Stat(weights)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{info.Size() - 1, info.Size() / 2, 4096, 1, 0} {
		if err := os.Truncate(weights, size); err != nil {
			t.Fatal(err)
		}
		if m, err := e.LoadPrepared(dir); err == nil {
			m.Close()
			t.Errorf("%d bytes of %d are loaded", size, info.Size())
		}
	}
	if err := os.Remove(weights); err != nil {
		t.Fatal(err)
	}
	if m, err := e.LoadPrepared(dir); err == nil {
		m.Close()
		t.Error("no weights are loaded")
	}
}

// TestTrim: what loading has freed is no memory of the process any more.
func TestTrim(t *testing.T) {
	e := open(t)
	path := weighty(1024).write(t) // three times 4 MiB
	dir := t.TempDir()
	if err := e.Prepare(path, dir); err != nil {
		t.Fatal(err)
	}
	Trim()
	before := anonymous(t)
	m, err := e.LoadPrepared(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	Trim()
	if after := anonymous(t); after > before+4<<20 {
		t.Errorf("12 MiB of shared weights cost %d KiB of the process's own", (after-before)>>10)
	}
}

// anonymous is the size of this process's own memory, RssAnon of proc_pid_status(5).
func anonymous(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nRssAnon:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}
