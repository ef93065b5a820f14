package inference

import "fmt"

// Row describes how rows of plain numbers fill a tensor of info: its first size
// counts rows, the others say what one row holds.
type Row struct {
	// Width is the number of elements in a row; -1: any.
	Width int
	// Count is the number of rows; -1: any.
	Count int
}

// Row returns info's row. A tensor with one dimension is a single row. One whose row
// cannot be told from its elements, because more than its first size is open, is an
// error, except [-1 -1]: there the first row decides.
func (info *TensorInfo) Row() (Row, error) {
	if info.AnyShape {
		return Row{}, fmt.Errorf("input %q takes any shape, of which a row's size is not known", info.Name)
	}
	switch len(info.Shape) {
	case 0:
		return Row{}, fmt.Errorf("input %q is a single number, not a row", info.Name)
	case 1:
		return Row{Width: int(info.Shape[0]), Count: 1}, nil
	case 2:
		return Row{Width: int(info.Shape[1]), Count: int(info.Shape[0])}, nil
	}
	n, err := Elements(info.Shape[1:])
	if err != nil {
		return Row{}, fmt.Errorf("input %q has the shape %v, of which a row's sizes are not all known", info.Name, info.Shape)
	}
	return Row{Width: int(n), Count: int(info.Shape[0])}, nil
}

// AppendShape appends to dst the shape of a tensor that holds rows rows of width
// elements.
func (info *TensorInfo) AppendShape(dst []int64, rows, width int) []int64 {
	if len(info.Shape) == 1 {
		return append(dst, int64(width))
	}
	dst = append(dst, int64(rows))
	if len(info.Shape) == 2 {
		return append(dst, int64(width))
	}
	return append(dst, info.Shape[1:]...)
}
