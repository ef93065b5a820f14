package worker

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
	"preforkd/internal/testkit/digits"
)

// TestNumbersOfEveryType: the elements are given as bytes, little endian.
func TestNumbersOfEveryType(t *testing.T) {
	for _, x := range []struct {
		dt   inference.DataType
		raw  string
		want []float64
	}{
		{inference.Bool, "\x00\x01", []float64{0, 1}},
		{inference.Uint8, "\x00\xff", []float64{0, 255}},
		{inference.Uint16, "\x01\x02\xff\xff", []float64{513, 65535}},
		{inference.Uint32, "\x00\x00\x00\x80", []float64{1 << 31}},
		{inference.Uint64, "\x00\x00\x00\x00\x00\x00\x00\x80", []float64{1 << 63}},
		{inference.Int8, "\x7f\x80", []float64{127, -128}},
		{inference.Int16, "\xff\xff\x00\x80", []float64{-1, -32768}},
		{inference.Int32, "\xfe\xff\xff\xff", []float64{-2}},
		{inference.Int64, "\xfd\xff\xff\xff\xff\xff\xff\xff", []float64{-3}},
		{inference.FP16, "\x00\x3c\x00\xc0\x01\x00\xff\x7b\x00\x80\x00\x7c", []float64{1, -2, 0x1p-24, 65504, 0, math.Inf(1)}},
		{inference.BF16, "\x80\x3f\x20\xc0\x80\xff", []float64{1, -2.5, math.Inf(-1)}},
		{inference.FP32, "\x00\x00\x80\x3f", []float64{1}},
		{inference.FP64, "\x00\x00\x00\x00\x00\x00\xf8\x3f", []float64{1.5}},
	} {
		for i, want := range x.want {
			if got := number(x.dt, []byte(x.raw), i); got != want {
				t.Errorf("%s: element %d is %v, want %v", x.dt, i, got, want)
			}
		}
	}
	for dt, raw := range map[inference.DataType]string{inference.FP16: "\x01\x7c", inference.BF16: "\xc0\x7f", inference.FP32: "\x00\x00\xc0\x7f"} {
		if got := number(dt, []byte(raw), 0); !math.IsNaN(got) {
			t.Errorf("%s: %v is no NaN", dt, got)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, x := range []struct {
		name      string
		values    []float32
		want      []float64
		tolerance float64
		err       string
	}{
		{"nothing expected", []float32{1, 2}, nil, 0, ""},
		{"equal", []float32{1, 2}, []float64{1, 2}, 0, ""},
		{"within", []float32{1, 2}, []float64{1.05, 1.95}, 0.1, ""},
		{"beyond", []float32{1, 2}, []float64{1.05, 3}, 0.1, "value 1 is 2, expected is 3, tolerance 0.1"},
		{"too few", []float32{1}, []float64{1, 3}, 0, "it has 1 values, of shape [1], expected are 2"},
		{"too many", []float32{1, 3}, []float64{1}, 0, "it has 2 values, of shape [2], expected are 1"},
		{"NaN", []float32{0, float32(math.NaN())}, nil, 0, "value 1 is NaN, which is not finite"},
		{"infinite, expected is not", []float32{float32(math.Inf(-1))}, []float64{7}, math.MaxFloat64, "value 0 is -Inf, expected is 7, tolerance 1.7976931348623157e+308"},
		{"none", nil, []float64{}, 0, ""},
	} {
		tensor := inference.Tensor{Name: "y"}
		if err := tensor.Reset(inference.FP32, []int64{int64(len(x.values))}); err != nil {
			t.Fatal(err)
		}
		copy(tensor.Float32s(), x.values)
		c := ipc.WarmupCase{Tolerance: x.tolerance}
		if x.want != nil {
			c.Outputs = map[string][]float64{"other": {9}, "y": x.want}
		}
		got := ""
		if err := compare(&tensor, &c); err != nil {
			got = err.Error()
		}
		if got != x.err {
			t.Errorf("%s: %q, want %q", x.name, got, x.err)
		}
	}
}

// TestZerosOfEveryType: strings are empty, and what is optional is left out.
func TestZerosOfEveryType(t *testing.T) {
	var in []inference.Tensor
	if err := zeros(&in, []inference.TensorInfo{
		{Name: "s", DataType: inference.Bytes, Shape: []int64{-1, 2}},
		{Name: "h", DataType: inference.FP16, Shape: []int64{3}},
		{Name: "o", DataType: inference.FP32, Shape: []int64{1}, Optional: true},
	}); err != nil {
		t.Fatal(err)
	}
	if in[0].Len() != 2 || in[0].TextBytes() != 0 || in[1].Len() != 3 || in[2].DataType != inference.Invalid {
		t.Errorf("%+v", in)
	}
	for _, want := range [][]float64{nil, {1, 2}} {
		c := ipc.WarmupCase{}
		if want != nil {
			c.Outputs = map[string][]float64{"s": want}
		}
		if err := compare(&in[0], &c); (err != nil) != (want != nil) {
			t.Errorf("strings, expected %v: %v", want, err)
		}
	}
}

// TestSelfTest runs the real model, and reads what an operator reads.
func TestSelfTest(t *testing.T) {
	w := complete(t)
	answers := digits.Load(t).Answers["digits"]
	request := json.RawMessage(bodies(t)["/v2/models/digits/infer"])
	label, probabilities := []float64{float64(answers.Labels[0])}, []float64{}
	for _, p := range answers.Probabilities[0] {
		probabilities = append(probabilities, float64(p))
	}
	right := ipc.WarmupCase{Request: request, Outputs: map[string][]float64{"label": label, "probabilities": probabilities}, Tolerance: 1e-4}
	const file = `self-test of model digits, version 1: models/digits/warmup.json, request `
	for _, x := range []struct {
		name  string
		cases []ipc.WarmupCase
		want  string
	}{
		{"zeros", nil, ""},
		{"right", []ipc.WarmupCase{right, right}, ""},
		{"another label", []ipc.WarmupCase{right, {Request: request, Outputs: map[string][]float64{"label": {label[0] - 1}}}}, file + `1: output "label": value 0 is 9, expected is 8, tolerance 0`},
		{"another output", []ipc.WarmupCase{{Request: request, Outputs: map[string][]float64{"lable": label}}}, file + `0: output "lable": the model has none of this name`},
		{"no request", []ipc.WarmupCase{{Request: json.RawMessage(`{"inputs":[]}`)}}, file + `0: its body: inputs`},
	} {
		w.set.Store(&ipc.ModelSet{Models: []ipc.ModelFile{{Name: "digits", Version: "1", Source: "models/digits/1/model.onnx", Warmup: x.cases}}})
		err := w.selfTest(t.Context())
		var f *ipc.Failure
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", x.name, err)
		case x.want != "" && (!errors.As(err, &f) || !strings.HasPrefix(f.What, x.want) || f.Try == "" || f.Exit != ipc.ExitBoot):
			t.Errorf("%s: %v\nwant %s", x.name, err, x.want)
		}
	}
	if w.permits.InUse() != 0 {
		t.Error("a permit is lost")
	}
}
