package onnx

import (
	"errors"
	"fmt"
	"slices"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

// trust is how far a model's declared output shapes are believed. An output that is
// believed lies in memory of ours, bound once; any other is allocated by ONNX Runtime
// in every run and copied. ONNX Runtime refuses a bound output of another shape than
// the run's result, so a wrong belief costs a second run, once, and no wrong answer.
type trust uint8

const (
	trustShapes  trust = iota // all dimensions are declared, or all but the batch
	trustScalars              // only that what is declared without dimensions has none
	trustNothing
)

// places tells whether output o is bound to memory of ours in a run of batch rows (-1:
// the inputs do not tell).
func (t trust) places(o *inference.TensorInfo, batch int64) bool {
	switch {
	case elements[o.DataType].raw == nil: // there is no other way
		return true
	case len(o.Shape) == 0:
		return t <= trustScalars
	}
	return t == trustShapes && derivable(o.Shape, batch >= 0)
}

// derivable tells whether shape is known, or will be once the batch is.
func derivable(shape []int64, batched bool) bool {
	for i, d := range shape {
		if d < 0 && (i > 0 || !batched) {
			return false
		}
	}
	return true
}

// resultShape is shape with the batch filled in. It is not nil.
func resultShape(shape []int64, batch int64) []int64 {
	s := append(make([]int64, 0, len(shape)), shape...)
	if len(s) > 0 && s[0] < 0 {
		s[0] = batch
	}
	return s
}

// batch is the first dimension of all inputs that leave it open, or -1.
func (m *model) batch(in []inference.Tensor) int64 {
	batch := int64(-1)
	for i := range m.inputs {
		if len(m.inputs[i].Shape) == 0 || m.inputs[i].Shape[0] >= 0 {
			continue
		}
		if batch >= 0 && batch != in[i].Shape[0] {
			return -1
		}
		batch = in[i].Shape[0]
	}
	return batch
}

// Run implements inference.Model.
func (m *model) Run(in, out []inference.Tensor) error { return m.RunUntil(nil, in, out) }

// RunUntil implements inference.Model.
func (m *model) RunUntil(s inference.Stop, in, out []inference.Tensor) error {
	m.stop, _ = s.(*stop)
	if err := m.check(in, out); err != nil {
		return err
	}
	if b := m.find(in); b != nil {
		err := m.runBound(b, in, out)
		if err == nil {
			return nil
		}
		m.drop(b)
		return m.runAgain(in, out, err)
	}
	if err := m.runUnbound(in, out, m.trust); err != nil {
		return m.runAgain(in, out, err)
	}
	return nil
}

// runAgain is Run after err: with less and less trust in the declared shapes, unless
// the error is about an input. What succeeds is remembered.
func (m *model) runAgain(in, out []inference.Tensor, err error) error {
	if m.stopped() {
		return inference.ErrStopped
	}
	if aboutInput(err) {
		return runError(err)
	}
	batch := m.batch(in)
	for t := m.trust + 1; t <= trustNothing; t++ {
		if m.placed(t, batch) == m.placed(t-1, batch) {
			continue // the same run once more
		}
		if m.runUnbound(in, out, t) == nil {
			m.trust = t
			return nil
		}
		if m.stopped() {
			return inference.ErrStopped
		}
	}
	return runError(err)
}

// placed is how many outputs t places. Less trust places some of the same ones.
func (m *model) placed(t trust, batch int64) (n int) {
	for i := range m.outputs {
		if t.places(&m.outputs[i], batch) {
			n++
		}
	}
	return n
}

// runUnbound makes a binding, runs it, and keeps it when that was right.
func (m *model) runUnbound(in, out []inference.Tensor, t trust) error {
	b, err := m.bind(in, t)
	if err != nil {
		return err
	}
	if err := m.runBound(b, in, out); err != nil {
		b.destroy()
		return err
	}
	m.keep(b)
	return nil
}

// check returns an error when in or out break the contract of Run, which is our own
// defect, or when in says that it is larger than can be.
func (m *model) check(in, out []inference.Tensor) error {
	if m.session == nil {
		return errors.New("run the model: it is closed")
	}
	if len(in) != len(m.inputs) || len(out) != len(m.outputs) {
		return fmt.Errorf("run the model: %d inputs and %d outputs were given, it has %d and %d",
			len(in), len(out), len(m.inputs), len(m.outputs))
	}
	for i := range in {
		if err := m.inputs[i].Check(in[i].DataType, in[i].Shape); err != nil {
			return fmt.Errorf("run the model: %w", err)
		}
		if len(in[i].Raw()) == 0 && span(in[i].Shape) > maxSpan {
			return fmt.Errorf("%w: %q has the shape %v: much for no elements", inference.ErrInput, m.inputs[i].Name, in[i].Shape)
		}
	}
	return nil
}

// maxSpan bounds the shapes of inputs without elements. Their size costs the client
// nothing, but outputs grow with it: [1000000000000 0] may want terabytes. Empty inputs
// as they are used (no rows, a cache of no steps yet) are far below it.
const maxSpan = 1 << 20

// span is the product of the sizes above zero, or maxSpan+1 if it is more than that.
func span(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		if d > maxSpan/n {
			return maxSpan + 1
		}
		n *= max(d, 1)
	}
	return n
}

// runBound copies in to where b's values point, runs, and copies the results to out.
func (m *model) runBound(b *binding, in, out []inference.Tensor) error {
	for i := range in {
		fill(m.in[i].raw, &in[i])
	}
	if b.io == nil {
		return m.runAllocating(b, out)
	}
	if err := m.call(b); err != nil {
		return err
	}
	for i := range out {
		if err := m.take(b.outputs[i], b.results[i], i, &out[i]); err != nil {
			return err
		}
	}
	return nil
}

// fill copies the elements of t to memory.
func fill(memory []byte, t *inference.Tensor) {
	raw := t.Raw()
	copy(memory, raw)
	if t.DataType == inference.Bool {
		for i, v := range raw {
			if v > 1 { // native code may take any other bool for neither true nor false
				memory[i] = 1
			}
		}
	}
}

// runAllocating is runBound where ONNX Runtime allocates some outputs.
func (m *model) runAllocating(b *binding, out []inference.Tensor) (err error) {
	values := slices.Clone(b.outputs)
	defer func() {
		for i, v := range values {
			if b.outputs[i] == nil && v != nil {
				err = errors.Join(err, v.Destroy())
			}
		}
	}()
	if err := m.session.RunWithOptions(b.inputs, values, m.runOptions()); err != nil {
		return err
	}
	for i, v := range values {
		shape := b.results[i]
		if shape == nil {
			shape = v.GetShape()
		}
		if err := m.take(v, shape, i, &out[i]); err != nil {
			return err
		}
	}
	return nil
}

// take copies output i, which is v of the given shape, to t.
func (m *model) take(v ort.Value, shape []int64, i int, t *inference.Tensor) error {
	info := &m.outputs[i]
	if err := t.Reset(info.DataType, shape); err != nil {
		return err
	}
	t.Name = info.Name
	if _, ours := v.(*ort.CustomDataTensor); ours {
		copy(t.Raw(), m.out[i].raw)
		return nil
	}
	raw, ok := elements[info.DataType].raw(v)
	if !ok || len(raw) != len(t.Raw()) {
		return fmt.Errorf("run the model: output %q is not the %s %v that it should be", info.Name, info.DataType, shape)
	}
	copy(t.Raw(), raw)
	return nil
}
