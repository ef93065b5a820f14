package inference

// DataType is a tensor's element type, with the names and sizes of the Open
// Inference Protocol (specification/protocol/inference_rest.md, "Tensor Data Types").
type DataType uint8

// The data types. Invalid is the zero value.
const (
	Invalid DataType = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	BF16
	FP32
	FP64
	Bytes // strings of any length; Size is 0
)

var dataTypes = [...]struct {
	name string
	size int
}{
	Invalid: {"INVALID", 0},
	Bool:    {"BOOL", 1},
	Uint8:   {"UINT8", 1},
	Uint16:  {"UINT16", 2},
	Uint32:  {"UINT32", 4},
	Uint64:  {"UINT64", 8},
	Int8:    {"INT8", 1},
	Int16:   {"INT16", 2},
	Int32:   {"INT32", 4},
	Int64:   {"INT64", 8},
	FP16:    {"FP16", 2},
	BF16:    {"BF16", 2},
	FP32:    {"FP32", 4},
	FP64:    {"FP64", 8},
	Bytes:   {"BYTES", 0},
}

// String returns the protocol's name, such as "FP32".
func (t DataType) String() string {
	if int(t) < len(dataTypes) {
		return dataTypes[t].name
	}
	return dataTypes[Invalid].name
}

// Size returns the bytes of one element; 0 for Bytes and Invalid.
func (t DataType) Size() int {
	if int(t) < len(dataTypes) {
		return dataTypes[t].size
	}
	return 0
}

// ParseDataType returns the type with the protocol's name s, or Invalid. It does
// not allocate.
func ParseDataType(s []byte) DataType {
	for t := Bool; int(t) < len(dataTypes); t++ {
		if string(s) == dataTypes[t].name {
			return t
		}
	}
	return Invalid
}
