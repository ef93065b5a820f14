package onnx

import (
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"
)

// bytesOf returns the memory of s as bytes.
func bytesOf[T ort.TensorData](s []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(one)))
}
