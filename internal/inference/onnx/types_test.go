package onnx

import (
	"slices"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

func texts(t testing.TB, shape []int64, v ...string) inference.Tensor {
	t.Helper()
	var x inference.Tensor
	if err := x.Reset(inference.Bytes, shape); err != nil {
		t.Fatal(err)
	}
	for _, s := range v {
		x.AppendText([]byte(s))
	}
	return x
}

func textsOf(t *inference.Tensor) []string {
	if t.DataType != inference.Bytes {
		return nil
	}
	list := make([]string, t.Len())
	for i := range list {
		list[i] = string(t.Text(i))
	}
	return list
}

// Strings of any content go in and come out, whatever their shape.
func TestStrings(t *testing.T) {
	e := open(t)
	for _, shape := range [][]int64{{-1, 2}, {-1, -2}, nil} {
		m := mustLoad(t, e, graph{
			nodes:   []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}},
			inputs:  []value{{"x", text, shape}},
			outputs: []value{{"y", text, shape}},
		}.write(t))
		if m.Inputs()[0].DataType != inference.Bytes || m.Inputs()[0].AnyShape != (shape == nil) {
			t.Errorf("%+v", m.Inputs()[0])
		}
		out := make([]inference.Tensor, 1)
		long := strings.Repeat("x", 10_000)
		for _, want := range [][]string{
			{"a", "b"}, {"", "a\x00b\xff"}, {"häuser", long, "", ""}, {}, {long, ""}, {"", ""},
		} {
			in := []inference.Tensor{texts(t, []int64{int64(len(want) / 2), 2}, want...)}
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
			if got := textsOf(&out[0]); !slices.Equal(got, want) || !slices.Equal(out[0].Shape, in[0].Shape) || out[0].Name != "y" {
				t.Errorf("%v %.40q, want %.40q", out[0].Shape, got, want)
			}
		}
		in := []inference.Tensor{texts(t, []int64{2, 2}, "one", "two", "three", "four")}
		if n := testing.AllocsPerRun(100, func() {
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v: a run of strings allocates %v times", shape, n)
		}
	}
}

// A model that mixes types: numbers to strings and back.
func TestStringsBesideNumbers(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes: []node{
			{op: "Cast", in: []string{"n"}, out: []string{"words"}, attrs: []attr{{name: "to", i: text}}},
			{op: "Cast", in: []string{"s"}, out: []string{"number"}, attrs: []attr{{name: "to", i: float}}},
		},
		inputs:  []value{{"n", int64s, []int64{-1}}, {"s", text, scalar}},
		outputs: []value{{"words", text, []int64{-1}}, {"number", float, scalar}},
	}.write(t))
	out := make([]inference.Tensor, 2)
	for _, s := range []string{"1.5", "-2"} {
		if err := m.Run([]inference.Tensor{ints(t, []int64{3}, 1, -20, 300), texts(t, scalar, s)}, out); err != nil {
			t.Fatal(err)
		}
		want := map[string]float32{"1.5": 1.5, "-2": -2}[s]
		if got := textsOf(&out[0]); !slices.Equal(got, []string{"1", "-20", "300"}) || out[1].Float32s()[0] != want || len(out[1].Shape) != 0 {
			t.Errorf("%q, %v", got, out[1].Float32s())
		}
	}
}

// A scalar of every type goes in and comes out.
func TestScalarsOfEveryType(t *testing.T) {
	e := open(t)
	for dt := inference.Bool; dt <= inference.Bytes; dt++ {
		code := codes[dt]
		m := mustLoad(t, e, graph{
			nodes:   []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}},
			inputs:  []value{{"x", code, scalar}},
			outputs: []value{{"y", code, scalar}},
		}.write(t))
		in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 1)
		for i := range 2 {
			if err := in[0].Reset(dt, nil); err != nil {
				t.Fatal(err)
			}
			if dt == inference.Bytes {
				in[0].AppendText([]byte{'a', byte(i)})
			} else {
				clear(in[0].Raw())
				in[0].Raw()[0] = byte(i)
			}
			if err := m.Run(in, out); err != nil {
				t.Fatalf("%s: %v", dt, err)
			}
			if !slices.Equal(out[0].Raw(), in[0].Raw()) || !slices.Equal(textsOf(&out[0]), textsOf(&in[0])) || len(out[0].Shape) != 0 || out[0].DataType != dt {
				t.Errorf("%s: % x came back as %v % x", dt, in[0].Raw(), out[0].Shape, out[0].Raw())
			}
		}
	}
}

// An initializer that is listed as an input has a value, which a run may replace.
func TestOptionalInputs(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes:   []node{{op: "Mul", in: []string{"x", "factor"}, out: []string{"y"}}},
		inputs:  []value{{"factor", float, []int64{1}}, {"x", float, rows4}},
		outputs: []value{{"y", float, rows4}},
		consts:  []literal{{name: "factor", code: float, shape: []int64{1}, floats: []float32{3}}},
	}.write(t))
	if in := m.Inputs(); len(in) != 2 || in[0].Name != "x" || in[0].Optional || in[1].Name != "factor" || !in[1].Optional {
		t.Fatalf("%+v", in)
	}
	x, out := floats(t, []int64{1, 4}, 1, 2, 3, 4), make([]inference.Tensor, 1)
	for _, c := range []struct {
		factor inference.Tensor
		want   float32
	}{
		{inference.Tensor{}, 6}, {floats(t, []int64{1}, 10), 20}, {inference.Tensor{}, 6}, {floats(t, []int64{1}, -1), -2},
	} {
		if err := m.Run([]inference.Tensor{x, c.factor}, out); err != nil || out[0].Float32s()[1] != c.want {
			t.Errorf("%v, %v; want %v", err, out[0].Float32s(), c.want)
		}
	}
	if err := m.Run([]inference.Tensor{{}, {}}, out); err == nil {
		t.Error("an input that is not optional is left out")
	}
}

// An input without a declared shape takes any.
func TestAnyShape(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes:   []node{{op: "Relu", in: []string{"x"}, out: []string{"y"}}},
		inputs:  []value{{"x", float, nil}},
		outputs: []value{{"y", float, nil}},
	}.write(t))
	out := make([]inference.Tensor, 1)
	for _, shape := range [][]int64{{2}, {}, {1, 2, 1}, {0}, {2}} {
		n, err := inference.Elements(shape)
		if err != nil {
			t.Fatal(err)
		}
		in := []inference.Tensor{floats(t, shape, []float32{1, -1}[:n]...)}
		if err := m.Run(in, out); err != nil || !slices.Equal(out[0].Shape, shape) || n > 0 && out[0].Float32s()[0] != 1 {
			t.Errorf("%v: %v, %v %v", shape, err, out[0].Shape, out[0].Float32s())
		}
	}
}
