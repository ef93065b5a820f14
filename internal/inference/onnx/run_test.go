package onnx

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/testkit/digits"
)

var (
	rows4  = []int64{-1, 4}
	scalar = []int64{}
)

// Outputs whose shape is not what the declared shapes and the batch promise. Each model
// runs with all rows, and after that must still answer the first ones rightly.
var surprising = []struct {
	name  string
	graph graph
	want  func(rows [][4]float32) (shape []int64, elements int)
}{
	{
		"as many rows as values above zero",
		graph{
			nodes: []node{
				{op: "Greater", in: []string{"x", "zero"}, out: []string{"c"}},
				{op: "NonZero", in: []string{"c"}, out: []string{"n"}},
				{op: "Transpose", in: []string{"n"}, out: []string{"y"}},
			},
			outputs: []value{{"y", int64s, []int64{-2, 2}}},
			consts:  []literal{{name: "zero", code: float, floats: []float32{0}}},
		},
		func(rows [][4]float32) ([]int64, int) {
			n := int64(0)
			for _, r := range rows {
				for _, v := range r {
					if v > 0 {
						n++
					}
				}
			}
			return []int64{n, 2}, int(2 * n)
		},
	},
	{
		"twice the batch",
		graph{
			nodes:   []node{{op: "Concat", in: []string{"x", "x"}, out: []string{"y"}, attrs: []attr{{name: "axis", i: 0}}}},
			outputs: []value{{"y", float, []int64{-2, 4}}},
		},
		func(rows [][4]float32) ([]int64, int) { return []int64{int64(2 * len(rows)), 4}, 8 * len(rows) },
	},
	{
		"always 1, says the model, wrongly",
		graph{
			nodes:   []node{{op: "Concat", in: []string{"x", "x"}, out: []string{"y"}, attrs: []attr{{name: "axis", i: 0}}}},
			outputs: []value{{"y", float, []int64{1, 4}}},
		},
		func(rows [][4]float32) ([]int64, int) { return []int64{int64(2 * len(rows)), 4}, 8 * len(rows) },
	},
	{
		"a view of the input",
		graph{
			nodes:   []node{{op: "Reshape", in: []string{"x", "s"}, out: []string{"y"}}},
			outputs: []value{{"y", float, []int64{-2, 2}}},
			consts:  []literal{{name: "s", code: int64s, shape: []int64{2}, ints: []int64{-1, 2}}},
		},
		func(rows [][4]float32) ([]int64, int) { return []int64{int64(2 * len(rows)), 2}, 4 * len(rows) },
	},
	{
		"a constant",
		graph{
			nodes: []node{
				{op: "Identity", in: []string{"k"}, out: []string{"y"}},
				{op: "Relu", in: []string{"x"}, out: []string{"unused"}},
			},
			outputs: []value{{"y", float, []int64{-2, 2}}},
			consts:  []literal{{name: "k", code: float, shape: []int64{3, 2}, floats: make([]float32, 6)}},
		},
		func([][4]float32) ([]int64, int) { return []int64{3, 2}, 6 },
	},
	{
		"dimensions exchanged",
		graph{
			nodes:   []node{{op: "Transpose", in: []string{"x"}, out: []string{"y"}}},
			outputs: []value{{"y", float, []int64{-2, -3}}},
		},
		func(rows [][4]float32) ([]int64, int) { return []int64{4, int64(len(rows))}, 4 * len(rows) },
	},
	{
		"no shape declared",
		graph{
			nodes:   []node{{op: "Concat", in: []string{"x", "x"}, out: []string{"y"}, attrs: []attr{{name: "axis", i: 0}}}},
			outputs: []value{{"y", float, nil}},
		},
		func(rows [][4]float32) ([]int64, int) { return []int64{int64(2 * len(rows)), 4}, 8 * len(rows) },
	},
	{
		"none left",
		graph{
			nodes:   []node{{op: "ReduceSum", in: []string{"x"}, out: []string{"y"}, attrs: []attr{{name: "keepdims", i: 0}}}},
			outputs: []value{{"y", float, scalar}},
		},
		func([][4]float32) ([]int64, int) { return scalar, 1 },
	},
}

func TestShapesThatOnlyTheRunTells(t *testing.T) {
	e := open(t)
	rows := [][4]float32{{1, 0, 2, 0}, {0, 0, 0, 0}, {3, 3, 3, 3}, {-1, 0, 0, 5}, {0, 1, 0, 0}}
	for _, c := range surprising {
		t.Run(c.name, func(t *testing.T) {
			c.graph.inputs = []value{{"x", float, rows4}}
			m := mustLoad(t, e, c.graph.write(t))
			out := make([]inference.Tensor, 1)
			for _, n := range []int{1, 5, 0, 3, 1, 2, 5} {
				in := []inference.Tensor{floats(t, []int64{int64(n), 4}, slices.Concat(flat(rows[:n])...)...)}
				if err := m.Run(in, out); err != nil {
					t.Fatalf("%d rows: %v", n, err)
				}
				shape, elements := c.want(rows[:n])
				if !slices.Equal(out[0].Shape, shape) || len(out[0].Raw()) != elements*out[0].DataType.Size() {
					t.Errorf("%d rows: shape %v, %d bytes; want %v", n, out[0].Shape, len(out[0].Raw()), shape)
				}
			}
		})
	}
}

func flat(rows [][4]float32) (s [][]float32) {
	for i := range rows {
		s = append(s, rows[i][:])
	}
	return s
}

// Scalars are bound like any other value, and change from run to run.
func TestScalars(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes: []node{
			{op: "Mul", in: []string{"x", "s"}, out: []string{"y"}},
			{op: "ReduceMax", in: []string{"y"}, out: []string{"top"}, attrs: []attr{{name: "keepdims", i: 0}}},
		},
		inputs:  []value{{"x", float, rows4}, {"s", float, scalar}},
		outputs: []value{{"y", float, rows4}, {"top", float, scalar}},
	}.write(t))
	out := make([]inference.Tensor, 2)
	for i, factor := range []float32{1, 2, 2, 1, 7} {
		in := []inference.Tensor{
			floats(t, []int64{1, 4}, 1, 2, 3, float32(4+i)),
			floats(t, scalar, factor),
		}
		if err := m.Run(in, out); err != nil {
			t.Fatal(err)
		}
		want := []float32{factor, 2 * factor, 3 * factor, float32(4+i) * factor}
		if !slices.Equal(out[0].Float32s(), want) || out[1].Float32s()[0] != want[3] || len(out[1].Shape) != 0 {
			t.Errorf("times %v: %v, largest %v %v; want %v", factor, out[0].Float32s(), out[1].Shape, out[1].Float32s(), want)
		}
	}
}

// codes are TensorProto.DataType.
var codes = map[inference.DataType]int{
	inference.FP32: 1, inference.Uint8: 2, inference.Int8: 3, inference.Uint16: 4, inference.Int16: 5,
	inference.Int32: 6, inference.Int64: 7, inference.Bytes: 8, inference.Bool: 9, inference.FP16: 10, inference.FP64: 11,
	inference.Uint32: 12, inference.Uint64: 13, inference.BF16: 16,
}

// Every type goes in and comes out, over memory of ours and (where the shape is open)
// from ONNX Runtime's.
func TestDataTypes(t *testing.T) {
	e := open(t)
	for dt := inference.Bool; dt < inference.Bytes; dt++ {
		for _, shape := range [][]int64{{-1, 4}, {-1, -2}} {
			code := codes[dt]
			path := graph{
				nodes:   []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}},
				inputs:  []value{{"x", code, shape}},
				outputs: []value{{"y", code, shape}},
			}.write(t)
			m, err := e.Load(path)
			if err != nil {
				t.Fatalf("%s: %v", dt, err)
			}
			in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 1)
			if err := in[0].Reset(dt, []int64{3, 4}); err != nil {
				t.Fatal(err)
			}
			for i := range in[0].Raw() {
				in[0].Raw()[i] = byte(i % 2)
			}
			if err := m.Run(in, out); err != nil {
				t.Fatalf("%s: %v", dt, err)
			}
			if out[0].DataType != dt || !slices.Equal(out[0].Raw(), in[0].Raw()) || !slices.Equal(out[0].Shape, []int64{3, 4}) {
				t.Errorf("%s %v: % x came back as %s %v % x", dt, shape, in[0].Raw(), out[0].DataType, out[0].Shape, out[0].Raw())
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A bool of another value than 0 and 1 is true, and only once.
func TestBoolsAreNormal(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes:   []node{{op: "Cast", in: []string{"x"}, out: []string{"y"}, attrs: []attr{{name: "to", i: int64s}}}},
		inputs:  []value{{"x", boolT, []int64{-1}}},
		outputs: []value{{"y", int64s, []int64{-1}}},
	}.write(t))
	in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 1)
	if err := in[0].Reset(inference.Bool, []int64{4}); err != nil {
		t.Fatal(err)
	}
	copy(in[0].Raw(), []byte{0, 1, 2, 255})
	if err := m.Run(in, out); err != nil {
		t.Fatal(err)
	}
	if got := out[0].Int64s(); !slices.Equal(got, []int64{0, 1, 1, 1}) {
		t.Errorf("%v", got)
	}
}

// More shapes than are kept bound, growing and shrinking, while the collector runs.
func TestManyShapes(t *testing.T) {
	e, set := open(t), digits.Load(t)
	m := mustLoad(t, e, modelFile(set, "digits")).(*model)
	want := set.Answers["digits"].Labels
	in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 2)
	for round := range 3 {
		for i := range 2 * maxBindings {
			n := (i*37+round)%(2*maxBindings) + 1
			from := i % (digits.Samples - 2*maxBindings)
			pixels(t, &in[0], set, from, from+n)
			if i%16 == 0 {
				runtime.GC()
			}
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(out[0].Int64s(), want[from:from+n]) {
				t.Fatalf("samples %d to %d: %v, want %v", from, from+n, out[0].Int64s(), want[from:from+n])
			}
		}
	}
	if len(m.bindings) != maxBindings {
		t.Errorf("%d bindings are kept", len(m.bindings))
	}
	in[0] = floats(t, []int64{0, digits.Features})
	if err := m.Run(in, out); err != nil || !slices.Equal(out[1].Shape, []int64{0, digits.Classes}) {
		t.Errorf("a batch of none: %v, shape %v", err, out[1].Shape)
	}
}

func TestRefusedValues(t *testing.T) {
	e := open(t)
	gather := mustLoad(t, e, graph{
		nodes:   []node{{op: "Gather", in: []string{"table", "i"}, out: []string{"y"}}},
		inputs:  []value{{"i", int64s, []int64{-1}}},
		outputs: []value{{"y", float, []int64{-1, 2}}},
		consts:  []literal{{name: "table", code: float, shape: []int64{3, 2}, floats: []float32{0, 1, 2, 3, 4, 5}}},
	}.write(t))
	add := mustLoad(t, e, graph{
		nodes:   []node{{op: "MatMul", in: []string{"a", "b"}, out: []string{"y"}}},
		inputs:  []value{{"a", float, []int64{-1, -2}}, {"b", float, []int64{-3, -4}}},
		outputs: []value{{"y", float, []int64{-1, -4}}},
	}.write(t))
	out := make([]inference.Tensor, 1)
	for range 3 {
		err := gather.Run([]inference.Tensor{ints(t, []int64{2}, 1, 7)}, out)
		if !errors.Is(err, inference.ErrInput) || !strings.Contains(err.Error(), "operator Gather") {
			t.Errorf("an index out of bounds: %v", err)
		}
		err = add.Run([]inference.Tensor{floats(t, []int64{2, 3}), floats(t, []int64{2, 3})}, out)
		if !errors.Is(err, inference.ErrInput) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), ".h:") {
			t.Errorf("dimensions that do not fit: %v", err)
		}
		// What was refused has no effect on what follows.
		if err := gather.Run([]inference.Tensor{ints(t, []int64{2}, 2, 0)}, out); err != nil {
			t.Fatal(err)
		}
		if got := out[0].Float32s(); !slices.Equal(got, []float32{4, 5, 0, 1}) {
			t.Errorf("rows 2 and 0: %v", got)
		}
	}
}

// A shape without elements is cheap to send, whatever its other sizes.
func TestEmptyInputsAreBounded(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes:   []node{{op: "MatMul", in: []string{"x", "k"}, out: []string{"y"}}},
		inputs:  []value{{"x", float, []int64{-1, -2}}, {"k", float, []int64{-3, 3}}},
		outputs: []value{{"y", float, []int64{-1, 3}}},
	}.write(t))
	out := make([]inference.Tensor, 1)
	k := floats(t, []int64{0, 3})
	if err := m.Run([]inference.Tensor{floats(t, []int64{2, 0}), k}, out); err != nil || !slices.Equal(out[0].Shape, []int64{2, 3}) {
		t.Errorf("%v, shape %v", err, out[0].Shape)
	}
	for _, shape := range [][]int64{{1e12, 0}, {0, 1e12}, {math.MaxInt64 / 8, 0}} {
		if err := m.Run([]inference.Tensor{floats(t, shape), k}, out); !errors.Is(err, inference.ErrInput) {
			t.Errorf("%v: %v", shape, err)
		}
	}
}

func TestRunAgainstTheContract(t *testing.T) {
	e, set := open(t), digits.Load(t)
	m, err := e.Load(modelFile(set, "digits"))
	if err != nil {
		t.Fatal(err)
	}
	good := []inference.Tensor{floats(t, []int64{1, 64})}
	out := make([]inference.Tensor, 2)
	for name, in := range map[string][]inference.Tensor{
		"no input": nil,
		"type":     {ints(t, []int64{1, 64})},
		"columns":  {floats(t, []int64{1, 63})},
		"rank":     {floats(t, []int64{64})},
	} {
		if err := m.Run(in, out); err == nil || errors.Is(err, inference.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Run(good, out[:1]); err == nil {
		t.Error("one output of two is enough")
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := m.Run(good, out); err == nil {
		t.Error("a closed model runs")
	}
}

// noLocale is what ONNX Runtime says where the locale of a StringNormalizer is not installed.
const noLocale = "Non-zero status code returned while running StringNormalizer node. Name:'' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/text/string_normalizer.cc:393 onnxruntime::string_normalizer::Locale::Locale(const std::string&)::<lambda()> Failed to construct locale with name:en_US.UTF-8:locale::facet::_S_create_c_locale name not valid"

// TestOwnFaults: what is missing on the machine is not the fault of the values.
func TestOwnFaults(t *testing.T) {
	for text, ours := range map[string]bool{
		"Non-zero status code returned while running Gather node. Name:'' Status Message: indices element out of data bounds, idx=9": false,
		"Failed to allocate memory for requested buffer of size 1":                                                                   true,
		noLocale: true,
	} {
		if err := runError(errors.New(text)); errors.Is(err, inference.ErrInput) == ours {
			t.Error(err)
		}
	}
}

func TestErrorsAreTidy(t *testing.T) {
	for in, want := range map[string]string{
		noLocale: "operator StringNormalizer: Failed to construct locale with name:en_US.UTF-8:locale::facet::_S_create_c_locale name not valid",
		"Non-zero status code returned while running Reshape node. Name:'r' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:47 onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) input_shape_size == size was false. Input shape:{1,4}, requested shape:{1,2}\n": "operator Reshape 'r': input_shape_size == size was false. Input shape:{1,4}, requested shape:{1,2}",
		"Non-zero status code returned while running MatMul node. Name:'' Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch":                                     "operator MatMul: MatMul dimension mismatch",
		"Error running network: Got invalid dimensions for input: x for the following indices\n index: 1 Got: 63 Expected: 64\n Please fix either the inputs/outputs or the model.": "Got invalid dimensions for input: x for the following indices index: 1 Got: 63 Expected: 64",
	} {
		if got := tidy(errors.New(in)); got != want {
			t.Errorf("%q\nbecomes %q\nwant    %q", in, got, want)
		}
	}
	if err := runError(fmt.Errorf("std::bad_alloc")); errors.Is(err, inference.ErrInput) {
		t.Errorf("lack of memory is the input's fault: %v", err)
	}
}
