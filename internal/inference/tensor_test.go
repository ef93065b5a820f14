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
	if err := x.Reset(Invalid, shape); err == nil {
		t.Error("a tensor of no type")
	}
}

// TestTexts: strings of any content come back, from memory that is reused.
func TestTexts(t *testing.T) {
	var x Tensor
	texts := [][]byte{[]byte("a\x00b"), nil, []byte("\xff"), []byte("häuser")}
	fill := func() {
		if err := x.Reset(Bytes, []int64{2, 2}); err != nil {
			t.Fatal(err)
		}
		for _, s := range texts {
			x.AppendText(s)
		}
	}
	fill()
	if n := testing.AllocsPerRun(100, fill); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if x.Len() != 4 || x.TextBytes() != 11 || len(x.Raw()) != 0 {
		t.Errorf("%d elements of %d bytes", x.Len(), x.TextBytes())
	}
	for i, s := range texts {
		if !slices.Equal(x.Text(i), s) {
			t.Errorf("element %d is %q, want %q", i, x.Text(i), s)
		}
	}
	text, starts := x.LayText(3, 5)
	copy(text, "abcde")
	copy(starts, []uint64{0, 2, 2})
	if x.Len() != 3 || string(x.Text(0)) != "ab" || len(x.Text(1)) != 0 || string(x.Text(2)) != "cde" {
		t.Errorf("%q %q %q", x.Text(0), x.Text(1), x.Text(2))
	}
	x.Trim(64)
	if x.Len() != 3 {
		t.Error("trimmed, though small")
	}
	x.Trim(8)
	if x.Len() != 0 || x.TextBytes() != 0 || x.Shape[0] != 0 {
		t.Errorf("%d elements are left", x.Len())
	}
	fill()
}

// TestBorrow: a tensor reads what lies elsewhere, where that is aligned, and lets it go.
func TestBorrow(t *testing.T) {
	var x, memory Tensor
	if err := memory.Reset(Uint64, []int64{4}); err != nil {
		t.Fatal(err)
	}
	if err := x.Reset(Int64, []int64{1}); err != nil {
		t.Fatal(err)
	}
	shape := []int64{3}
	for offset := range 8 {
		got := x.Borrow(Int32, shape, memory.Raw()[offset:offset+12])
		if got != (offset%4 == 0) {
			t.Errorf("at offset %d: %v", offset, got)
		}
	}
	if !x.Borrow(Uint8, shape, memory.Raw()[5:8]) || x.Borrow(Bytes, shape, memory.Raw()) {
		t.Error("bytes are aligned anywhere, strings are not borrowed")
	}
	memory.Raw()[6] = 7
	if x.Raw()[1] != 7 || x.Len() != 3 {
		t.Errorf("% x", x.Raw())
	}
	x.Trim(1 << 20)
	if len(x.Raw()) != 0 || x.Shape[0] != 0 {
		t.Error("what was borrowed is kept")
	}
	if err := x.Reset(Int64, []int64{1}); err != nil || len(x.Int64s()) != 1 {
		t.Errorf("%v", err)
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
	any := TensorInfo{Name: "any", DataType: FP32, AnyShape: true}
	for _, shape := range [][]int64{nil, {3}, {1, 2, 3}} {
		if err := any.Check(FP32, shape); err != nil {
			t.Error(err)
		}
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
