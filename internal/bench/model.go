package bench

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

// heavyModel is a model whose run takes a core for some tenths of a second and whose file has some
// hundred bytes: a square matrix of equal numbers, which is made from its shape, times itself,
// so many times.
type heavyModel struct {
	Width, Layers int
}

// heavyInputs is how many numbers a request has.
const heavyInputs = 8

// write writes the model to dir/1/model.onnx.
func (m heavyModel) write(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "1"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "1", "model.onnx"), m.encode(), 0o644)
}

// encode is the model as onnx.proto says: the numbers are its field numbers. The products stay what
// the mean of the input is, since each row of the matrix sums up to 1.
func (m heavyModel) encode() []byte {
	width := uint64(m.Width)
	shape := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, width), width)
	share := binary.LittleEndian.AppendUint32(nil, math.Float32bits(1/float32(m.Width)))
	graph := protoBytes(nil, 1, node("ConstantOfShape", "a", []string{"shape"}, attribute("value", 5, 4, protoTensor("", protoFloat, share, 1))))
	graph = protoBytes(graph, 1, node("ReduceMean", "mean", []string{"x"}))
	graph = protoBytes(graph, 1, node("Mul", "h0", []string{"a", "mean"}))
	at := "h0"
	for i := range m.Layers {
		next := "h" + string(rune('1'+i))
		graph = protoBytes(graph, 1, node("MatMul", next, []string{at, "a"}))
		at = next
	}
	graph = protoBytes(graph, 1, node("ReduceMean", "y", []string{at}))
	graph = protoText(graph, 2, "heavy")
	graph = protoBytes(graph, 5, protoTensor("shape", protoInt64, shape, 2))
	graph = protoBytes(protoBytes(graph, 11, value("x", 1, heavyInputs)), 12, value("y", 1, 1))
	return protoBytes(protoBytes(protoNumber(nil, 1, 7), 7, graph), 8, protoNumber(nil, 2, 13)) // opset 13
}

func protoNumber(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func protoBytes(b []byte, field protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), content)
}

func protoText(b []byte, field protowire.Number, text string) []byte {
	return protoBytes(b, field, []byte(text))
}

// node is a NodeProto.
func node(op, out string, in []string, attributes ...[]byte) (b []byte) {
	for _, name := range in {
		b = protoText(b, 1, name)
	}
	b = protoText(protoText(b, 2, out), 4, op)
	for _, a := range attributes {
		b = protoBytes(b, 5, a)
	}
	return b
}

// attribute is an AttributeProto whose content is in that field and of that type.
func attribute(name string, field protowire.Number, kind uint64, content []byte) []byte {
	return protoNumber(protoBytes(protoText(nil, 1, name), field, content), 20, kind)
}

const (
	protoFloat = 1 // of TensorProto.DataType
	protoInt64 = 7
)

// protoTensor is a TensorProto of one dimension.
func protoTensor(name string, kind uint64, raw []byte, size uint64) []byte {
	return protoBytes(protoText(protoNumber(protoNumber(nil, 1, size), 2, kind), 8, name), 9, raw)
}

// value is a ValueInfoProto of floating-point numbers.
func value(name string, dims ...uint64) []byte {
	var shape []byte
	for _, d := range dims {
		shape = protoBytes(shape, 1, protoNumber(nil, 1, d))
	}
	return protoBytes(protoText(nil, 1, name), 2, protoBytes(nil, 1, protoBytes(protoNumber(nil, 1, protoFloat), 2, shape)))
}
