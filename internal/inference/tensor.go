package inference

import (
	"errors"
	"fmt"
	"math"
	"slices"
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
// as on the machines this runs on, aligned for their type. Raw, View, Float32s and
// Int64s are views of it, valid until the next Reset.
//
// Strings (Bytes) lie one after the other in one text, with the offset at which each
// begins, so that many of them cost as little as one; see AppendText and LayText.
type Tensor struct {
	Name     string
	DataType DataType
	Shape    []int64
	words    []uint64 // memory of its own: words, so that it is aligned for 8-byte types
	raw      []byte   // the elements: in words, or what Borrow was given
	text     []byte
	starts   []uint64 // of each string in text; size_t, which engines write
}

// Reset gives t the type and shape, and memory for its elements, whose values are
// whatever was there before; a tensor of strings has none yet. It allocates only when
// t has never been as large. shape is copied. The shape must have no negative size and
// at most MaxElements.
func (t *Tensor) Reset(dt DataType, shape []int64) error {
	n, err := Elements(shape)
	if err != nil {
		return err
	}
	size := int64(dt.Size())
	if size == 0 && dt != Bytes {
		return fmt.Errorf("a tensor of type %s has no elements", dt)
	}
	t.DataType = dt
	t.Shape = append(t.Shape[:0], shape...)
	t.text, t.starts = t.text[:0], t.starts[:0]
	t.grow(int(n * size))
	return nil
}

// Borrow is Reset for elements that lie in memory already, as bytes: t reads them there
// until the next Reset, Borrow or Trim, and nothing is copied. It reports false, and has
// done nothing, if memory is not aligned for dt. The caller has checked its length.
func (t *Tensor) Borrow(dt DataType, shape []int64, memory []byte) bool {
	if !aligned(memory, dt.Size()) {
		return false
	}
	t.DataType = dt
	t.Shape = append(t.Shape[:0], shape...)
	t.text, t.starts = t.text[:0], t.starts[:0]
	t.raw = memory
	return true
}

// Trim frees t's memory if it is larger than limit bytes, and gives borrowed memory back;
// then t is empty. It keeps a reused tensor from holding for ever what one large value
// once needed. It returns how many bytes it has freed.
func (t *Tensor) Trim(limit int) (freed int) {
	borrowed := len(t.raw) > 0 && !t.owns()
	if n := cap(t.words)*8 + cap(t.text) + cap(t.starts)*8; n > limit {
		t.words, t.text, t.starts = nil, nil, nil
		freed = n
	} else if !borrowed {
		return 0
	}
	t.raw, t.text, t.starts = nil, t.text[:0], t.starts[:0]
	t.Shape = append(t.Shape[:0], 0)
	return freed
}

func (t *Tensor) grow(bytes int) {
	words := (bytes + 7) / 8
	if words > cap(t.words) {
		t.words = make([]uint64, words)
	}
	t.words = t.words[:words]
	t.raw = bytesOf(t.words)[:bytes]
}

// Len returns the number of elements that t holds. Of strings that may be fewer than its
// shape says, while they are appended.
func (t *Tensor) Len() int {
	if t.DataType == Bytes {
		return len(t.starts)
	}
	return len(t.raw) / max(t.DataType.Size(), 1)
}

// Raw returns the elements of a fixed-size type as bytes, little endian.
func (t *Tensor) Raw() []byte { return t.raw }

// Text returns element i of a tensor of strings. It is valid until the next change.
func (t *Tensor) Text(i int) []byte {
	end := uint64(len(t.text))
	if i+1 < len(t.starts) {
		end = t.starts[i+1]
	}
	return t.text[t.starts[i]:end:end]
}

// TextBytes returns how long the strings are together.
func (t *Tensor) TextBytes() int { return len(t.text) }

// Texts returns all strings as one text, and the offsets at which they begin in it.
func (t *Tensor) Texts() (text []byte, starts []uint64) { return t.text, t.starts }

// AppendText appends an element to a tensor of strings. It copies s.
func (t *Tensor) AppendText(s []byte) {
	t.starts = append(t.starts, uint64(len(t.text)))
	t.text = append(t.text, s...)
}

// ReserveText makes room for count strings of size bytes in all that are appended next, so
// that many of them are not copied as they become more.
func (t *Tensor) ReserveText(count, size int) {
	t.text, t.starts = slices.Grow(t.text, size), slices.Grow(t.starts, count)
}

// LayText makes room for count strings of size bytes in all, for an engine that fills it
// in: the text, and the ascending offsets at which its strings begin.
func (t *Tensor) LayText(count, size int) (text []byte, starts []uint64) {
	if size > cap(t.text) {
		t.text = make([]byte, size)
	}
	if count > cap(t.starts) {
		t.starts = make([]uint64, count)
	}
	t.text, t.starts = t.text[:size], t.starts[:count]
	return t.text, t.starts
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
	if info.AnyShape {
		return nil
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
