package onnx

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/testkit/digits"
)

func TestInputsAndOutputs(t *testing.T) {
	e, set := open(t), digits.Load(t)
	for _, name := range digits.Names {
		m := mustLoad(t, e, modelFile(set, name))
		equal := func(got []inference.TensorInfo, want ...inference.TensorInfo) {
			t.Helper()
			if !slices.EqualFunc(got, want, func(a, b inference.TensorInfo) bool {
				return a.Name == b.Name && a.DataType == b.DataType && slices.Equal(a.Shape, b.Shape)
			}) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		equal(m.Inputs(), inference.TensorInfo{Name: "pixels", DataType: inference.FP32, Shape: []int64{-1, 64}})
		equal(m.Outputs(), inference.TensorInfo{Name: "label", DataType: inference.Int64, Shape: []int64{-1}},
			inference.TensorInfo{Name: "probabilities", DataType: inference.FP32, Shape: []int64{-1, 10}})
	}
}

func TestUnsupportedModelsAreRefused(t *testing.T) {
	e := open(t)
	x := []value{{"x", float, rows4}}
	for want, g := range map[string]graph{
		`input "z" has elements of type FLOAT8E4M3FN, which the protocol has not; cast it to another type in the model`: {
			nodes:   []node{{op: "Cast", in: []string{"z"}, out: []string{"y"}, attrs: []attr{{name: "to", i: float}}}},
			inputs:  []value{{"z", 17, rows4}},
			outputs: []value{{"y", float, rows4}},
			opset:   19,
		},
		`output "parts" is a sequence of tensors, which the protocol has no tensor for; export the model with one output for each, or with one that joins them`: {
			nodes:        []node{{op: "SequenceConstruct", in: []string{"x"}, out: []string{"parts"}}},
			inputs:       x,
			otherOutputs: [][]byte{other("parts", 4, message(nil, 1, typeOf(float)))}, // sequence_type.elem_type
		},
		`input "parts" is a sequence of tensors, which the protocol has no tensor for; export the model with one input for each, or with one that joins them`: {
			nodes:       []node{{op: "ConcatFromSequence", in: []string{"parts"}, out: []string{"y"}, attrs: []attr{{name: "axis"}}}},
			outputs:     []value{{"y", float, nil}},
			otherInputs: [][]byte{other("parts", 4, message(nil, 1, typeOf(float)))},
		},
		`output "probs" is a sequence of maps, which the protocol has no tensor for; export the model with zipmap off`: {
			nodes: []node{{
				op: "ZipMap", in: []string{"x"}, out: []string{"probs"}, domain: "ai.onnx.ml",
				attrs: []attr{{name: "classlabels_int64s", ints: []int64{0, 1, 2, 3}}},
			}},
			inputs: x,
			// sequence_type.elem_type, which is a map_type with key_type and value_type
			otherOutputs: [][]byte{other("probs", 4, message(nil, 1, message(nil, 5, message(varint(nil, 1, int64s), 2, typeOf(float)))))},
		},
		`Sqrtt`: {
			nodes:   []node{{op: "Sqrtt", in: []string{"x"}, out: []string{"y"}}},
			inputs:  x,
			outputs: []value{{"y", float, rows4}},
		},
	} {
		m, err := e.Load(g.write(t))
		if err == nil {
			_ = m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// A damaged file is an error that does not name the file: the caller has a better name.
func TestDamagedFiles(t *testing.T) {
	e, set := open(t), digits.Load(t)
	path := filepath.Join(t.TempDir(), "damaged.onnx")
	refused := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := e.Load(path)
		if err == nil {
			_ = m.Close()
			t.Errorf("%s: loads", what)
		} else if strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") || err.Error() == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range digits.Names {
		data, err := os.ReadFile(modelFile(set, name))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			refused(name+", cut", data[:len(data)*i/50])
		}
		refused(name+", without its last byte", data[:len(data)-1])
		refused(name+", then more", append(slices.Clone(data), "more"...))
	}
	for _, text := range []string{"", "\x00", "ORTM", "....ORTM....", "<html><body>404</body></html>", strings.Repeat("\xff", 4096)} {
		refused(text[:min(len(text), 20)], []byte(text))
	}
	for _, path := range []string{path + ".none", t.TempDir(), "", "a\x00b"} {
		if _, err := e.Load(path); err == nil || path != "" && strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// Single changed bytes: an error or a model that runs. Not of a forest: ONNX Runtime
// 1.24.3 does not compare the lengths of a TreeEnsembleClassifier's lists (as it does for
// a TreeEnsembleRegressor), and aborts the process when one of them is short.
func TestChangedBytes(t *testing.T) {
	e, set := open(t), digits.Load(t)
	data, err := os.ReadFile(modelFile(set, "digits"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "changed.onnx")
	random := rand.New(rand.NewPCG(1, 2))
	in := []inference.Tensor{floats(t, []int64{3, digits.Features})}
	loaded := 0
	for range 200 {
		changed := slices.Clone(data)
		for range 1 + random.IntN(3) {
			at := random.IntN(len(data))
			if random.IntN(2) == 0 { // the weights are most of the file; its structure is the rest
				at = len(data) - 1 - random.IntN(500)
			}
			changed[at] = byte(random.Uint32())
		}
		if err := os.WriteFile(path, changed, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := e.Load(path)
		if err != nil {
			continue
		}
		loaded++
		if len(m.Inputs()) == 1 && m.Inputs()[0].Check(in[0].DataType, in[0].Shape) == nil {
			_ = m.Run(in, make([]inference.Tensor, len(m.Outputs()))) // an error is an answer, too
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 200 load", loaded)
}
