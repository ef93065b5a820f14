package e2e

import (
	"encoding/binary"
	"math"
)

// Models small enough to be written out here, as onnx.proto says: the numbers are its
// field numbers. Both take n, INT64 of shape [2], and give y, one FP32.

func field(b []byte, number int, v int64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(number)<<3), uint64(v))
}

func part(b []byte, number int, content []byte) []byte {
	b = binary.AppendUvarint(b, uint64(number)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(content))), content...)
}

func operator(op, out string, in ...string) []byte {
	var b []byte
	for _, name := range in {
		b = part(b, 1, []byte(name))
	}
	return part(part(b, 2, []byte(out)), 4, []byte(op))
}

func tensorOf(name string, elem, dim int64) []byte {
	shape := part(nil, 1, field(nil, 1, dim))
	return part(part(nil, 1, []byte(name)), 2, part(nil, 1, part(field(nil, 1, elem), 2, shape)))
}

const (
	onnxFloat = 1
	onnxInt64 = 7
)

func onnxModel(nodes ...[]byte) []byte {
	var g []byte
	for _, n := range nodes {
		g = part(g, 1, n)
	}
	one := field(field(field(nil, 1, 1), 1, 1), 2, onnxFloat) // shape [1,1]
	one = part(part(one, 8, []byte("one")), 9, binary.LittleEndian.AppendUint32(nil, math.Float32bits(1)))
	shape := part(part(field(field(nil, 1, 1), 2, onnxInt64), 8, []byte("flat")), 9, binary.LittleEndian.AppendUint64(nil, 1))
	small := part(part(field(field(nil, 1, 1), 2, onnxInt64), 8, []byte("small")), 9, binary.LittleEndian.AppendUint64(nil, 2))
	g = part(g, 2, []byte("square"))
	g = part(part(part(g, 5, one), 5, shape), 5, small)
	g = part(part(g, 11, tensorOf("n", onnxInt64, 2)), 12, tensorOf("y", onnxFloat, 1))
	return modelOf(g)
}

func modelOf(graph []byte) []byte {
	m := part(field(nil, 1, 7), 7, graph)
	return part(m, 8, field(nil, 2, 13)) // opset 13
}

// integers is a model of INT64 from n to y, both of shape [1], with the constants one and
// hundred.
func integers(nodes ...[]byte) []byte {
	var g []byte
	for _, n := range nodes {
		g = part(g, 1, n)
	}
	g = part(g, 2, []byte("integers"))
	for name, v := range map[string]uint64{"one": 1, "hundred": 100} {
		c := part(field(field(nil, 1, 1), 2, onnxInt64), 8, []byte(name))
		g = part(g, 5, part(c, 9, binary.LittleEndian.AppendUint64(nil, v)))
	}
	g = part(part(g, 11, tensorOf("n", onnxInt64, 1)), 12, tensorOf("y", onnxInt64, 1))
	return modelOf(g)
}

// deadly divides 100 by n. Where n is 0 the processor raises #DE, which is SIGFPE and the
// end of the process (on x86-64; arm64 answers 0).
func deadly() []byte { return integers(operator("Div", "y", "hundred", "n")) }

// mended is deadly for every n but those below 1.
func mended() []byte {
	return integers(operator("Max", "m", "n", "one"), operator("Div", "y", "hundred", "m"))
}

// product multiplies an n by n matrix of ones with itself: 2n³ operations, or no memory.
func product() []byte {
	return onnxModel(
		operator("Expand", "m", "one", "n"), operator("MatMul", "p", "m", "m"),
		operator("ReduceMax", "max", "p"), operator("Reshape", "y", "max", "flat"))
}

// modest is product with an n of at most 2.
func modest() []byte {
	return onnxModel(
		operator("Min", "s", "n", "small"),
		operator("Expand", "m", "one", "s"), operator("MatMul", "p", "m", "m"),
		operator("ReduceMax", "max", "p"), operator("Reshape", "y", "max", "flat"))
}
