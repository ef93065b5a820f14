package inference

import "unsafe"

// Number is a Go type of the elements of some fixed-size data type.
type Number interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64
}

// View returns the elements of t as T, whose size is that of t's type.
func View[T Number](t *Tensor) []T {
	var one T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.raw))), len(t.raw)/int(unsafe.Sizeof(one)))
}

// Float32s returns the elements of an FP32 tensor.
func (t *Tensor) Float32s() []float32 { return View[float32](t) }

// Int64s returns the elements of an INT64 tensor.
func (t *Tensor) Int64s() []int64 { return View[int64](t) }

// bytesOf returns the memory of words.
func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
}

// aligned tells whether memory can be read as elements of size bytes.
func aligned(memory []byte, size int) bool {
	return size > 0 && uintptr(unsafe.Pointer(unsafe.SliceData(memory)))%uintptr(size) == 0
}

// owns tells whether the elements lie in t's own memory.
func (t *Tensor) owns() bool {
	return unsafe.Pointer(unsafe.SliceData(t.raw)) == unsafe.Pointer(unsafe.SliceData(t.words))
}
