package inference

import (
	"slices"
	"testing"
)

func TestRow(t *testing.T) {
	for _, c := range []struct {
		shape []int64
		want  Row
		ok    bool
		two   []int64 // the shape of two rows of the width, or of 5 where that is open
	}{
		{[]int64{-1, 64}, Row{64, -1}, true, []int64{2, 64}},
		{[]int64{1, 64}, Row{64, 1}, true, []int64{2, 64}},
		{[]int64{64}, Row{64, 1}, true, []int64{64}},
		{[]int64{-1}, Row{-1, 1}, true, []int64{5}},
		{[]int64{-1, -1}, Row{-1, -1}, true, []int64{2, 5}},
		{[]int64{-1, 3, 4, 4}, Row{48, -1}, true, []int64{2, 3, 4, 4}},
		{[]int64{-1, 3, -1, -1}, Row{}, false, nil},
		{nil, Row{}, false, nil},
	} {
		info := TensorInfo{Name: "x", DataType: FP32, Shape: c.shape}
		row, err := info.Row()
		if row != c.want || (err == nil) != c.ok {
			t.Errorf("%v: %+v, %v", c.shape, row, err)
			continue
		}
		if !c.ok {
			continue
		}
		width := row.Width
		if width < 0 {
			width = 5
		}
		if got := info.AppendShape(nil, 2, width); !slices.Equal(got, c.two) {
			t.Errorf("%v: two rows have the shape %v, want %v", c.shape, got, c.two)
		}
	}
}
