package onnx

import (
	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

// elements are ONNX's names of the protocol's types.
var elements = [...]ort.TensorElementDataType{
	inference.Bool:   ort.TensorElementDataTypeBool,
	inference.Uint8:  ort.TensorElementDataTypeUint8,
	inference.Uint16: ort.TensorElementDataTypeUint16,
	inference.Uint32: ort.TensorElementDataTypeUint32,
	inference.Uint64: ort.TensorElementDataTypeUint64,
	inference.Int8:   ort.TensorElementDataTypeInt8,
	inference.Int16:  ort.TensorElementDataTypeInt16,
	inference.Int32:  ort.TensorElementDataTypeInt32,
	inference.Int64:  ort.TensorElementDataTypeInt64,
	inference.FP16:   ort.TensorElementDataTypeFloat16,
	inference.BF16:   ort.TensorElementDataTypeBFloat16,
	inference.FP32:   ort.TensorElementDataTypeFloat,
	inference.FP64:   ort.TensorElementDataTypeDouble,
	inference.Bytes:  ort.TensorElementDataTypeString,
}

// dataType returns the protocol's type for ONNX's, or Invalid.
func dataType(code ort.TensorElementDataType) inference.DataType {
	for dt := range elements {
		if elements[dt] == code && inference.DataType(dt) != inference.Invalid {
			return inference.DataType(dt)
		}
	}
	return inference.Invalid
}
