package inference

import "unsafe"

// Raw returns the elements as bytes, little endian.
func (t *Tensor) Raw() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(t.words))), t.bytes)
}

// Float32s returns the elements of an FP32 tensor.
func (t *Tensor) Float32s() []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(t.words))), t.bytes/4)
}

// Int64s returns the elements of an INT64 tensor.
func (t *Tensor) Int64s() []int64 {
	return unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(t.words))), t.bytes/8)
}
