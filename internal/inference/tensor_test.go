package inference

import (
	"math"
	"slices"
	"testing"
)

func TestElements(t *testing.T) {
	for _, c := range []struct {
		shape []int64
		want  int64
		ok    bool
	}{
		{nil, 1, true},
		{[]int64{1, 64}, 64, true},
		{[]int64{0, math.MaxInt64}, 0, true},
		{[]int64{math.MaxInt64, 2}, 0, false},
		{[]int64{1 << 40, 1 << 40}, 0, false},
		{[]int64{-1, 64}, 0, false},
	} {
		n, err := Elements(c.shape)
		if n != c.want || (err == nil) != c.ok {
			t.Errorf("Elements(%v) = %d, %v; want %d, ok %v", c.shape, n, err, c.want, c.ok)
		}
	}
}

func TestTensorReusesMemory(t *testing.T) {
	var x Tensor
	if err := x.Reset(FP32, []int64{2, 3}); err != nil {
		t.Fatal(err)
	}
	copy(x.Float32s(), []float32{1, 2, 3, 4, 5, 6})
	if got := x.Raw()[4:8]; !slices.Equal(got, []byte{0, 0, 0, 0x40}) {
		t.Errorf("second element as bytes: % x", got)
	}
	shape := []int64{1, 2}
	if n := testing.AllocsPerRun(100, func() { _ = x.Reset(Int64, shape) }); n != 0 {
		t.Errorf("Reset to a smaller tensor allocates %v times", n)
	}
	if len(x.Int64s()) != 2 || len(x.Raw()) != 16 {
		t.Errorf("%d elements in %d bytes", len(x.Int64s()), len(x.Raw()))
	}
	if err := x.Reset(Bytes, shape); err == nil {
		t.Error("a tensor of strings has no fixed size")
	}
}

func TestTrimKeepsSmallMemory(t *testing.T) {
	var x Tensor
	shape := []int64{8}
	if err := x.Reset(Int64, shape); err != nil {
		t.Fatal(err)
	}
	x.Trim(64)
	if len(x.Int64s()) != 8 {
		t.Error("a tensor of 64 bytes was trimmed to 64 bytes and lost them")
	}
	x.Trim(63)
	if n, err := Elements(x.Shape); n != 0 || err != nil || len(x.Raw()) != 0 {
		t.Errorf("trimmed: shape %v, %d bytes", x.Shape, len(x.Raw()))
	}
	if err := x.Reset(Int64, shape); err != nil || len(x.Int64s()) != 8 {
		t.Errorf("after Trim and Reset: %d elements, %v", len(x.Int64s()), err)
	}
}

func TestCheckNamesTheInput(t *testing.T) {
	info := TensorInfo{Name: "pixels", DataType: FP32, Shape: []int64{-1, 64}}
	if err := info.Check(FP32, []int64{7, 64}); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		dt    DataType
		shape []int64
		want  string
	}{
		{Int64, []int64{1, 64}, `input "pixels": datatype INT64, the model takes FP32`},
		{FP32, []int64{64}, `input "pixels": shape [64] has 1 dimensions, the model takes [-1 64]`},
		{FP32, []int64{1, 63}, `input "pixels": shape [1 63], the model takes [-1 64]`},
	} {
		if err := info.Check(c.dt, c.shape); err == nil || err.Error() != c.want {
			t.Errorf("%v; want %s", err, c.want)
		}
	}
}

func TestDataTypesParseBack(t *testing.T) {
	for dt := Bool; dt <= Bytes; dt++ {
		if got := ParseDataType([]byte(dt.String())); got != dt {
			t.Errorf("%s parses as %s", dt, got)
		}
	}
	if ParseDataType([]byte("FLOAT")) != Invalid || DataType(200).Size() != 0 {
		t.Error("an unknown type has a size")
	}
}
