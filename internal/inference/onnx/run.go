package onnx

import (
	"errors"
	"fmt"
	"slices"

	"preforkd/internal/inference"
)

// placeable tells whether output o is bound to memory of ours in a run of batch rows (-1: the
// inputs do not tell), once for all runs of the same shapes. Any other output is allocated
// by ONNX Runtime in every run and copied from there.
//
// The declared shapes are believed at first. ONNX Runtime refuses a bound output of
// another shape than the run's result, so a wrong belief costs a second run, once, and no
// wrong answer; from then on the model is distrusted, and all of its outputs are allocated.
func placeable(o *inference.TensorInfo, batch int64) bool {
	return o.DataType != inference.Bytes && !o.AnyShape && derivable(o.Shape, batch >= 0)
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
		if len(m.inputs[i].Shape) == 0 || m.inputs[i].Shape[0] >= 0 || in[i].DataType == inference.Invalid {
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
	b, err := m.find(in), error(nil)
	if b == nil {
		if b, err = m.bind(in, m.distrust); err != nil {
			return runError(err)
		}
		m.keep(b)
	}
	if err = m.runBound(b, in, out); err == nil {
		return nil
	}
	m.drop(b)
	if m.stopped() {
		return inference.ErrStopped
	}
	if aboutInput(err) || b.placed == 0 {
		return runError(err)
	}
	return m.runAgain(in, out, err)
}

// runAgain is Run after err, without belief in the declared shapes of outputs. If that
// succeeds they were at fault, else it is for the reason that err says.
func (m *model) runAgain(in, out []inference.Tensor, err error) error {
	b, again := m.bind(in, true)
	if again != nil {
		return runError(err)
	}
	if m.runBound(b, in, out) == nil {
		m.distrust = true
		m.unbind()
		m.keep(b)
		return nil
	}
	m.destroy(b)
	if m.stopped() {
		return inference.ErrStopped
	}
	return runError(err)
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
		if in[i].DataType == inference.Invalid && m.inputs[i].Optional {
			continue
		}
		if err := m.inputs[i].Check(in[i].DataType, in[i].Shape); err != nil {
			return fmt.Errorf("run the model: %w", err)
		}
		if n, err := inference.Elements(in[i].Shape); err != nil || int64(in[i].Len()) != n {
			return fmt.Errorf("run the model: input %q has %d elements, its shape is %v", m.inputs[i].Name, in[i].Len(), in[i].Shape)
		}
		if in[i].Len() == 0 && span(in[i].Shape) > maxSpan {
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

// runBound copies in to where b's values point, or has them point to in, runs, and copies
// the results to out.
func (m *model) runBound(b *binding, in, out []inference.Tensor) (err error) {
	if len(b.views) > 0 {
		defer func() { // last: an output may be an input's memory
			if e := m.hide(b); err == nil {
				err = e
			}
		}()
		if err := m.show(b, in); err != nil {
			return err
		}
	}
	for i := range in {
		switch {
		case b.inputs[i] == nil, slices.Contains(b.views, i):
		case in[i].DataType == inference.Bytes:
			if err := m.calls.putTexts(b.inputs[i], &in[i]); err != nil {
				return err
			}
		default:
			fill(m.in[i].raw, &in[i])
		}
	}
	if err := m.call(b); err != nil {
		return err
	}
	for i, shape := range b.results {
		if shape == nil {
			continue
		}
		if err := out[i].Reset(m.outputs[i].DataType, shape); err != nil {
			return err
		}
		out[i].Name = m.outputs[i].Name
		copy(out[i].Raw(), m.out[i].raw)
	}
	if b.placed == len(out) {
		return nil
	}
	return m.takeAllocated(b, out)
}

// takeAllocated copies the outputs that ONNX Runtime has allocated, and binds them anew:
// else the next run would find their values of this one, and write over them.
func (m *model) takeAllocated(b *binding, out []inference.Tensor) error {
	if err := m.calls.results(b.native, &m.results); err != nil {
		return err
	}
	defer m.calls.free(&m.results)
	for i, shape := range b.results {
		if shape != nil {
			continue
		}
		if err := m.calls.take(&m.results, i, m.outputs[i].DataType, &out[i]); err != nil {
			return fmt.Errorf("copy output %q: %w", m.outputs[i].Name, err)
		}
		out[i].Name = m.outputs[i].Name
		if err := m.calls.bindOutput(b.native, m.outNames[i], nil); err != nil {
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
