package main

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// perceptron is a generated model: layers of a square matrix and ReLU between 64 numbers
// ("pixels", as of the model digits) and 10 ("y").
//
// With one position a request is a vector, and a run reads every weight for a few
// additions: what it costs are the weights. With more, the same numbers are moved by another
// amount at each position and all go through the layers: what it costs is arithmetic.
type perceptron struct {
	Width     int `json:"width"`
	Layers    int `json:"layers"`
	Positions int `json:"positions"`
	// Seed makes other weights of the same size.
	Seed uint64 `json:"seed,omitempty"`
}

const (
	mlpInputs  = 64
	mlpOutputs = 10
)

// bytes is the size of the weights.
func (p perceptron) bytes() int { return 4 * p.Width * (mlpInputs + p.Layers*p.Width + mlpOutputs) }

// write writes the model to dir/1/model.onnx, beside a config.yaml with the settings.
// The same perceptron always gives the same bytes.
func (p perceptron) write(dir, settings string) error {
	if err := os.MkdirAll(filepath.Join(dir, "1"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(settings), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "1", "model.onnx"), p.encode(), 0o644)
}

// encode is the model as onnx.proto says: the numbers are its field numbers.
func (p perceptron) encode() []byte {
	chance := rand.New(rand.NewPCG(uint64(p.Width), uint64(p.Layers)+p.Seed<<32))
	g := graphText{}
	at := "pixels"
	then := func(op, out string, in ...string) {
		g.node(op, out, append([]string{at}, in...)...)
		at = out
	}
	times := func(name string, rows, columns int) {
		// He's initialisation: what goes through many layers neither vanishes nor explodes.
		scale := math.Sqrt(2 / float64(rows))
		g.floats(name, []int{rows, columns}, func() float32 { return float32(chance.NormFloat64() * scale) })
		then("MatMul", name+"x", name)
	}
	if p.Positions > 1 {
		g.ints("axis", 1)
		g.floats("moves", []int{1, p.Positions, mlpInputs}, func() float32 { return chance.Float32() })
		then("Unsqueeze", "row", "axis")
		then("Add", "moved", "moves")
	}
	rows := mlpInputs
	for i := range p.Layers + 1 {
		times("w"+strconv.Itoa(i), rows, p.Width)
		then("Relu", "h"+strconv.Itoa(i))
		rows = p.Width
	}
	times("last", rows, mlpOutputs)
	if p.Positions > 1 {
		g.node("ReduceMean", "y", at)
		g.attribute("axes", 1)
		g.attribute("keepdims", 0)
	} else {
		g.node("Identity", "y", at)
	}
	return g.model()
}

// graphText is a GraphProto that grows. Its input is pixels, FP32 of any number of rows, its output y.
type graphText struct {
	nodes, constants [][]byte
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

// node adds a NodeProto.
func (g *graphText) node(op, out string, in ...string) {
	var b []byte
	for _, name := range in {
		b = protoText(b, 1, name)
	}
	g.nodes = append(g.nodes, protoText(protoText(b, 2, out), 4, op))
}

// attribute gives the last node an AttributeProto: a list of one number for axes, else a number.
func (g *graphText) attribute(name string, v uint64) {
	b := protoText(nil, 1, name)
	if name == "axes" {
		b = protoNumber(protoNumber(b, 8, v), 20, 7) // ints, type INTS
	} else {
		b = protoNumber(protoNumber(b, 3, v), 20, 2) // i, type INT
	}
	last := len(g.nodes) - 1
	g.nodes[last] = protoBytes(g.nodes[last], 5, b)
}

const (
	protoFloat = 1 // of TensorProto.DataType
	protoInt64 = 7
)

// floats adds a TensorProto whose elements next returns one by one.
func (g *graphText) floats(name string, shape []int, next func() float32) {
	var b []byte
	n := 1
	for _, d := range shape {
		b = protoNumber(b, 1, uint64(d))
		n *= d
	}
	raw := make([]byte, 0, 4*n)
	for range n {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(next()))
	}
	g.constants = append(g.constants, protoBytes(protoText(protoNumber(b, 2, protoFloat), 8, name), 9, raw))
}

// ints adds a TensorProto with one whole number.
func (g *graphText) ints(name string, v uint64) {
	b := protoText(protoNumber(protoNumber(nil, 1, 1), 2, protoInt64), 8, name)
	g.constants = append(g.constants, protoBytes(b, 9, binary.LittleEndian.AppendUint64(nil, v)))
}

// model returns the ModelProto.
func (g *graphText) model() []byte {
	var b []byte
	for _, n := range g.nodes {
		b = protoBytes(b, 1, n)
	}
	b = protoText(b, 2, "perceptron")
	for _, c := range g.constants {
		b = protoBytes(b, 5, c)
	}
	value := func(name string, columns uint64) []byte {
		rows := protoBytes(nil, 1, protoText(nil, 2, "rows")) // dim_param
		shape := protoBytes(rows, 1, protoNumber(nil, 1, columns))
		return protoBytes(protoText(nil, 1, name), 2, protoBytes(nil, 1, protoBytes(protoNumber(nil, 1, protoFloat), 2, shape)))
	}
	b = protoBytes(protoBytes(b, 11, value("pixels", mlpInputs)), 12, value("y", mlpOutputs))
	return protoBytes(protoBytes(protoNumber(nil, 1, 7), 7, b), 8, protoNumber(nil, 2, 13)) // opset 13
}
