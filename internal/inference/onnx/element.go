package onnx

import (
	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

// element is how the binding handles one data type.
type element struct {
	code ort.TensorElementDataType
	// scalar returns a value without dimensions; nil where the binding has none.
	scalar func(raw []byte) (ort.Value, error)
	// raw returns the elements of a value as bytes; false when it is of another type.
	// nil where the binding returns damaged values: it copies as many bytes as there
	// are elements, whatever their size.
	raw func(v ort.Value) ([]byte, bool)
}

var elements = [...]element{
	inference.Bool:   numeric[bool](ort.TensorElementDataTypeBool),
	inference.Uint8:  numeric[uint8](ort.TensorElementDataTypeUint8),
	inference.Uint16: numeric[uint16](ort.TensorElementDataTypeUint16),
	inference.Uint32: numeric[uint32](ort.TensorElementDataTypeUint32),
	inference.Uint64: numeric[uint64](ort.TensorElementDataTypeUint64),
	inference.Int8:   numeric[int8](ort.TensorElementDataTypeInt8),
	inference.Int16:  numeric[int16](ort.TensorElementDataTypeInt16),
	inference.Int32:  numeric[int32](ort.TensorElementDataTypeInt32),
	inference.Int64:  numeric[int64](ort.TensorElementDataTypeInt64),
	inference.FP16:   {code: ort.TensorElementDataTypeFloat16},
	inference.BF16:   {code: ort.TensorElementDataTypeBFloat16},
	inference.FP32:   numeric[float32](ort.TensorElementDataTypeFloat),
	inference.FP64:   numeric[float64](ort.TensorElementDataTypeDouble),
}

func numeric[T ort.TensorData](code ort.TensorElementDataType) element {
	return element{
		code: code,
		scalar: func(raw []byte) (ort.Value, error) {
			var v [1]T
			copy(bytesOf(v[:]), raw)
			s, err := ort.NewScalar(v[0])
			if err != nil {
				return nil, err // not s: a nil pointer in an interface is not nil
			}
			return s, nil
		},
		raw: func(v ort.Value) ([]byte, bool) {
			switch v := v.(type) {
			case *ort.Tensor[T]:
				return bytesOf(v.GetData()), true
			case *ort.Scalar[T]:
				return bytesOf([]T{v.GetData()}), true
			}
			return nil, false
		},
	}
}

// dataType returns the protocol's type for ONNX's, or Invalid.
func dataType(code ort.TensorElementDataType) inference.DataType {
	for dt := range elements {
		if elements[dt].code == code && inference.DataType(dt) != inference.Invalid {
			return inference.DataType(dt)
		}
	}
	return inference.Invalid
}
