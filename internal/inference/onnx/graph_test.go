package onnx

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"preforkd/internal/inference"
)

// graph is a model small enough to be written out in a test. It is encoded as onnx.proto
// says (field numbers in comments are from there), so that no test needs Python.
type graph struct {
	nodes   []node
	inputs  []value
	outputs []value
	consts  []literal
	opset   int64 // 0: 13

	// Inputs and outputs that are no tensors, as ValueInfoProto, after the others.
	otherInputs, otherOutputs [][]byte
}

// node is an operator of the default domain, opset 13, or of version 1 of another.
type node struct {
	op      string
	in, out []string
	attrs   []attr
	domain  string
}

type attr struct {
	name string
	i    int64
	ints []int64 // instead of i
}

// value is an input or output. A dimension below zero is open, and two with the same
// number are the same; a nil shape is an open one.
type value struct {
	name  string
	code  int // TensorProto.DataType
	shape []int64
}

type literal struct {
	name   string
	code   int
	shape  []int64
	floats []float32
	ints   []int64
}

// TensorProto.DataType.
const (
	float  = 1
	int64s = 7
	text   = 8
	boolT  = 9
)

func varint(b []byte, field int, v int64) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3)
	return binary.AppendUvarint(b, uint64(v))
}

func message(b []byte, field int, content []byte) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(content)))
	return append(b, content...)
}

func (v value) encode() []byte {
	var dims []byte
	for _, d := range v.shape {
		dim := varint(nil, 1, d) // Dimension.dim_value
		if d < 0 {
			dim = message(nil, 2, []byte{'d', byte('0' - d)}) // dim_param
		}
		dims = message(dims, 1, dim)
	}
	tensor := varint(nil, 1, int64(v.code)) // TypeProto.Tensor.elem_type
	if v.shape != nil {
		tensor = message(tensor, 2, dims) // shape
	}
	b := message(nil, 1, []byte(v.name))          // ValueInfoProto.name
	return message(b, 2, message(nil, 1, tensor)) // type.tensor_type
}

// other is an input or output of a type that is no tensor: field is that of TypeProto, and
// content what it says there.
func other(name string, field int, content []byte) []byte {
	return message(message(nil, 1, []byte(name)), 2, message(nil, field, content))
}

// typeOf is a TypeProto of a tensor of any shape.
func typeOf(code int64) []byte { return message(nil, 1, varint(nil, 1, code)) }

func (n node) encode() []byte {
	var b []byte
	for _, s := range n.in {
		b = message(b, 1, []byte(s)) // NodeProto.input
	}
	for _, s := range n.out {
		b = message(b, 2, []byte(s)) // output
	}
	b = message(b, 4, []byte(n.op)) // op_type
	for _, a := range n.attrs {
		x := message(nil, 1, []byte(a.name)) // AttributeProto.name
		if a.ints != nil {
			for _, i := range a.ints {
				x = varint(x, 8, i) // ints
			}
			x = varint(x, 20, 7) // type: INTS
		} else {
			x = varint(x, 3, a.i) // i
			x = varint(x, 20, 2)  // type: INT
		}
		b = message(b, 5, x) // attribute
	}
	if n.domain != "" {
		b = message(b, 7, []byte(n.domain)) // domain
	}
	return b
}

func (l literal) encode() []byte {
	var b, raw []byte
	for _, d := range l.shape {
		b = varint(b, 1, d) // TensorProto.dims
	}
	b = varint(b, 2, int64(l.code)) // data_type
	b = message(b, 8, []byte(l.name))
	for _, f := range l.floats {
		raw, _ = binary.Append(raw, binary.LittleEndian, f)
	}
	for _, i := range l.ints {
		raw, _ = binary.Append(raw, binary.LittleEndian, i)
	}
	return message(b, 9, raw) // raw_data
}

func (g graph) encode() []byte {
	var b []byte
	for _, n := range g.nodes {
		b = message(b, 1, n.encode()) // GraphProto.node
	}
	b = message(b, 2, []byte("test")) // name
	for _, c := range g.consts {
		b = message(b, 5, c.encode()) // initializer
	}
	for _, v := range g.inputs {
		b = message(b, 11, v.encode())
	}
	for _, v := range g.outputs {
		b = message(b, 12, v.encode())
	}
	for _, v := range g.otherInputs {
		b = message(b, 11, v)
	}
	for _, v := range g.otherOutputs {
		b = message(b, 12, v)
	}
	model := varint(nil, 1, 7)   // ModelProto.ir_version
	model = message(model, 7, b) // graph
	for _, n := range g.nodes {
		if n.domain != "" {
			model = message(model, 8, varint(message(nil, 1, []byte(n.domain)), 2, 1)) // opset_import.domain
		}
	}
	return message(model, 8, varint(nil, 2, max(g.opset, 13))) // opset_import.version
}

// write puts g into a file of the test.
func (g graph) write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, g.encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// floats and ints return tensors with the given elements.
func floats(t testing.TB, shape []int64, v ...float32) inference.Tensor {
	t.Helper()
	var x inference.Tensor
	if err := x.Reset(inference.FP32, shape); err != nil {
		t.Fatal(err)
	}
	copy(x.Float32s(), v)
	return x
}

func ints(t testing.TB, shape []int64, v ...int64) inference.Tensor {
	t.Helper()
	var x inference.Tensor
	if err := x.Reset(inference.Int64, shape); err != nil {
		t.Fatal(err)
	}
	copy(x.Int64s(), v)
	return x
}
