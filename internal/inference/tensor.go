package inference

import (
	"errors"
	"fmt"
	"math"
)

// ErrInput marks an error of Model.Run that the caller's values caused.
var ErrInput = errors.New("input refused")

// ErrStopped marks an error of Model.RunUntil that its Stop caused.
var ErrStopped = errors.New("the run was stopped")

// MaxElements bounds a tensor's elements, so that sizes in bytes never overflow.
const MaxElements = math.MaxInt64 / 8

// Tensor is a value: a type, a shape and its elements in row-major order. The
// memory may be reused from call to call; see Reset.
//
// The elements of every fixed-size type lie in one piece of memory, little endian
// as on the machines this runs on, aligned for any type. Float32s, Int64s and
// Raw are views of it, valid until the next Reset.
type Tensor struct {
	Name     string
	DataType DataType
	Shape    []int64
	words    []uint64 // the memory: words, so that it is aligned for 8-byte types
	bytes    int      // how much of it is in use
}

// Reset gives t the type and shape, and memory for its elements, whose values are
// whatever was there before. It allocates only when t has never been as large.
// shape is copied. The shape must have no negative size and at most MaxElements.
func (t *Tensor) Reset(dt DataType, shape []int64) error {
	n, err := Elements(shape)
	if err != nil {
		return err
	}
	size := int64(dt.Size())
	if size == 0 {
		return fmt.Errorf("a tensor of type %s has no fixed size", dt)
	}
	t.DataType = dt
	t.Shape = append(t.Shape[:0], shape...)
	t.grow(int(n * size))
	return nil
}

// Trim frees t's memory if it is larger than limit bytes; then t is empty. It keeps a
// reused tensor from holding for ever what one large value once needed.
func (t *Tensor) Trim(limit int) {
	if cap(t.words)*8 > limit {
		t.words, t.bytes = nil, 0
		t.Shape = append(t.Shape[:0], 0)
	}
}

func (t *Tensor) grow(bytes int) {
	words := (bytes + 7) / 8
	if words > cap(t.words) {
		t.words = make([]uint64, words)
	}
	t.words = t.words[:words]
	t.bytes = bytes
}

// Elements returns the product of the sizes in shape, 1 for an empty one (a
// scalar). A negative size or a product above MaxElements is an error.
func Elements(shape []int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("negative size %d", d)
		}
		if d != 0 && n > MaxElements/d {
			return 0, errors.New("the number of elements overflows")
		}
		n *= d
	}
	return n, nil
}

// Check returns an error that names the input and what does not fit when a tensor
// of type dt and shape shape cannot be given for info.
func (info *TensorInfo) Check(dt DataType, shape []int64) error {
	if dt != info.DataType {
		return fmt.Errorf("input %q: datatype %s, the model takes %s", info.Name, dt, info.DataType)
	}
	if len(shape) != len(info.Shape) {
		return fmt.Errorf("input %q: shape %v has %d dimensions, the model takes %v", info.Name, shape, len(shape), info.Shape)
	}
	for i, want := range info.Shape {
		if want >= 0 && shape[i] != want {
			return fmt.Errorf("input %q: shape %v, the model takes %v", info.Name, shape, info.Shape)
		}
	}
	return nil
}
