package worker

import (
	"bytes"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

func TestDescribedInputs(t *testing.T) {
	infos := []inference.TensorInfo{
		{Name: "x", DataType: inference.FP32, Shape: []int64{-1, 2}}, {Name: "n", DataType: inference.Int64, Shape: []int64{-1}},
	}
	x := ipc.WarmupInput{Name: "x", DataType: "FP32", Shape: []int64{1, 2}, File: "raw", Data: []byte("12345678")}
	n := ipc.WarmupInput{Name: "n", DataType: "INT64", Shape: []int64{64}, Random: true}
	var in, again []inference.Tensor
	for _, into := range []*[]inference.Tensor{&in, &again} {
		if err := described(into, infos, []ipc.WarmupInput{n, x}); err != nil {
			t.Fatal(err)
		}
	}
	if in[0].Name != "x" || string(in[0].Raw()) != "12345678" || !bytes.Equal(in[1].Raw(), again[1].Raw()) {
		t.Errorf("%+v", in)
	}
	sum := int64(0)
	for _, v := range in[1].Int64s() {
		if sum += v; v != 0 && v != 1 {
			t.Errorf("an index is %d", v)
		}
	}
	if sum == 0 {
		t.Error("nothing is random")
	}
	for want, list := range map[string][]ipc.WarmupInput{
		`it has no input "n"`:      {x},
		`the model has none of`:    {x, n, {Name: "y"}},
		`datatype INT64, the mod`:  {{Name: "x", DataType: "INT64", Shape: []int64{1, 2}}, n},
		`input "x": shape`:         {{Name: "x", DataType: "FP32", Shape: []int64{1, 3}}, n},
		`the file raw has 8 bytes`: {{Name: "x", DataType: "FP32", Shape: []int64{2, 2}, File: "raw", Data: x.Data}, n},
	} {
		if err := described(&in, infos, list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// TestRandomNumbersAreFinite, in every type.
func TestRandomNumbersAreFinite(t *testing.T) {
	for dt := inference.Bool; dt < inference.Bytes; dt++ {
		var tensor inference.Tensor
		if err := tensor.Reset(dt, []int64{100}); err != nil {
			t.Fatal(err)
		}
		clear(tensor.Raw())
		randomize(&tensor)
		for i := range 100 {
			if v := number(dt, tensor.Raw(), i); !(v >= 0 && v <= 1) {
				t.Errorf("%s: %v", dt, v)
			}
		}
	}
}
