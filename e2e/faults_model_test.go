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

func tensorOf(name string, elem int64, dims ...int64) []byte {
	var shape []byte
	for _, dim := range dims {
		shape = part(shape, 1, field(nil, 1, dim))
	}
	return part(part(nil, 1, []byte(name)), 2, part(nil, 1, part(field(nil, 1, elem), 2, shape)))
}

const (
	onnxFloat = 1
	onnxInt32 = 6
	onnxInt64 = 7
	onnxBool  = 9
)

// floatOf is a constant with one element and so many dimensions.
func floatOf(name string, dims int, v float32) []byte {
	var b []byte
	for range dims {
		b = field(b, 1, 1)
	}
	return part(part(field(b, 2, onnxFloat), 8, []byte(name)), 9, binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
}

// intOf is a constant of shape [1].
func intOf(name string, v uint64) []byte {
	return part(part(field(field(nil, 1, 1), 2, onnxInt64), 8, []byte(name)), 9, binary.LittleEndian.AppendUint64(nil, v))
}

func graphOf(consts, inputs, outputs [][]byte, nodes ...[]byte) []byte {
	var g []byte
	for _, n := range nodes {
		g = part(g, 1, n)
	}
	g = part(g, 2, []byte("test"))
	for _, c := range consts {
		g = part(g, 5, c)
	}
	for _, i := range inputs {
		g = part(g, 11, i)
	}
	for _, o := range outputs {
		g = part(g, 12, o)
	}
	m := part(field(nil, 1, 7), 7, g)
	return part(m, 8, field(nil, 2, 13)) // opset 13
}

func onnxModel(nodes ...[]byte) []byte {
	return graphOf([][]byte{floatOf("one", 2, 1), intOf("flat", 1), intOf("small", 2)},
		[][]byte{tensorOf("n", onnxInt64, 2)}, [][]byte{tensorOf("y", onnxFloat, 1)}, nodes...)
}

// rounds goes round n times, through two operators each: a run that can be stopped.
func rounds() []byte {
	scalar := func(name string, elem int64) []byte {
		return part(part(nil, 1, []byte(name)), 2, part(nil, 1, part(field(nil, 1, elem), 2, nil)))
	}
	body := part(nil, 1, operator("Identity", "again", "go"))
	body = part(part(body, 1, operator("Mul", "next", "was", "one")), 2, []byte("body"))
	for _, in := range [][]byte{scalar("i", onnxInt64), scalar("go", onnxBool), tensorOf("was", onnxFloat, 1)} {
		body = part(body, 11, in)
	}
	body = part(part(body, 12, scalar("again", onnxBool)), 12, tensorOf("next", onnxFloat, 1))
	loop := operator("Loop", "y", "times", "", "one")
	loop = part(loop, 5, part(field(part(nil, 1, []byte("body")), 20, 5), 6, body)) // 5: a graph
	return graphOf([][]byte{floatOf("one", 1, 1)}, [][]byte{tensorOf("n", onnxInt64, 2)}, [][]byte{tensorOf("y", onnxFloat, 1)},
		operator("ReduceMax", "times", "n"), loop)
}

// stubborn compares every two of k boxes in one operator, which nothing stops: for two
// hundred thousand that takes many seconds. It takes boxes, [1,k,4], and scores,
// [1,1,k], and gives y, how many boxes are left.
func stubborn() []byte {
	return graphOf([][]byte{floatOf("zero", 3, 0), floatOf("overlap", 1, 0.5), intOf("most", 1<<40), intOf("flat", 1)},
		[][]byte{tensorOf("boxes", onnxInt64, 3), tensorOf("scores", onnxInt64, 3)}, [][]byte{tensorOf("y", onnxInt64, 1)},
		operator("Expand", "b", "zero", "boxes"), operator("Expand", "s", "zero", "scores"),
		operator("NonMaxSuppression", "left", "b", "s", "most", "overlap"), operator("Shape", "counts", "left"),
		operator("ReduceMax", "max", "counts"), operator("Reshape", "y", "max", "flat"))
}

// integers is a model of INT64 from n to y, both of shape [1], with the constants one and
// hundred.
func integers(nodes ...[]byte) []byte {
	return graphOf([][]byte{intOf("one", 1), intOf("hundred", 100)},
		[][]byte{tensorOf("n", onnxInt64, 1)}, [][]byte{tensorOf("y", onnxInt64, 1)}, nodes...)
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
