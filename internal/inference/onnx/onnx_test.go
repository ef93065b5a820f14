package onnx

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/testkit/digits"
)

// open opens the engine with the real library for the duration of the test.
func open(t testing.TB) inference.Engine {
	t.Helper()
	e, err := Open(library(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func library(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ONNXRUNTIME")
	if path == "" {
		path = filepath.Join("..", "..", "..", ".cache", "onnxruntime", "1.24.3", libraryName)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return path
}

// mustLoad loads the model at path for the duration of the test.
func mustLoad(t testing.TB, e inference.Engine, path string) inference.Model {
	t.Helper()
	m, err := e.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func modelFile(set digits.Set, name string) string {
	return filepath.Join(set.Root, "models", name, "1", "model.onnx")
}

// pixels fills x with samples from to to.
func pixels(t testing.TB, x *inference.Tensor, set digits.Set, from, to int) {
	t.Helper()
	if err := x.Reset(inference.FP32, []int64{int64(to - from), digits.Features}); err != nil {
		t.Fatal(err)
	}
	for i, row := range set.Pixels[from:to] {
		copy(x.Float32s()[i*digits.Features:], row[:])
	}
}

// Every model answers as scikit-learn does, whatever the batch.
func TestDigitsEqualScikitLearn(t *testing.T) {
	e, set := open(t), digits.Load(t)
	for _, name := range digits.Names {
		t.Run(name, func(t *testing.T) {
			m, want := mustLoad(t, e, modelFile(set, name)), set.Answers[name]
			in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 2)
			worst := 0.0
			for _, batch := range []int{1, 7, digits.Samples, 1} {
				for from := 0; from < digits.Samples; from += batch {
					to := min(from+batch, digits.Samples)
					pixels(t, &in[0], set, from, to)
					if err := m.Run(in, out); err != nil {
						t.Fatal(err)
					}
					if out[0].Name != "label" || out[1].Name != "probabilities" {
						t.Fatalf("outputs %q, %q", out[0].Name, out[1].Name)
					}
					for i := from; i < to; i++ {
						if got := out[0].Int64s()[i-from]; got != want.Labels[i] {
							t.Errorf("batch %d, sample %d: label %d, want %d", batch, i, got, want.Labels[i])
						}
						for c, p := range want.Probabilities[i] {
							got := out[1].Float32s()[(i-from)*digits.Classes+c]
							worst = max(worst, math.Abs(float64(got)-float64(p)))
						}
					}
				}
			}
			t.Logf("largest deviation of a probability: %.2g", worst)
			if worst > 1e-4 {
				t.Errorf("a probability deviates by %g", worst)
			}
		})
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	e, set := open(t), digits.Load(t)
	for _, name := range digits.Names {
		m := mustLoad(t, e, modelFile(set, name))
		batches := make([][]inference.Tensor, 3)
		for i, size := range []int{1, 7, 32} {
			batches[i] = make([]inference.Tensor, 1)
			pixels(t, &batches[i][0], set, 0, size)
		}
		out := make([]inference.Tensor, 2)
		run := func() {
			for _, in := range batches {
				if err := m.Run(in, out); err != nil {
					t.Fatal(err)
				}
			}
		}
		run() // the largest batch moves the memory
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	e, set := open(b), digits.Load(b)
	for _, name := range digits.Names {
		b.Run(name, func(b *testing.B) {
			m := mustLoad(b, e, modelFile(set, name))
			in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 2)
			pixels(b, &in[0], set, 0, 1)
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Run(in, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
