package onnx

import (
	"errors"
	"runtime"
	"slices"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

// maxBindings bounds the combinations of input shapes that a model keeps bound: the
// batch sizes 1 to 32. A binding is a few hundred bytes, its memory is the model's.
const maxBindings = 32

// buffer is memory for one input or output, shared by all bindings of a model: only
// one of them runs at a time. It is pinned, because ONNX Runtime's values point to it
// between calls (cmd/cgo, "Passing pointers").
type buffer struct {
	tensor inference.Tensor // never given away: it only holds the memory
	raw    []byte
	pin    runtime.Pinner
}

// reserve makes room for size bytes. It returns false when the memory has moved, and
// all values that point to it must be made anew.
func (b *buffer) reserve(size int) (stayed bool, err error) {
	if size <= len(b.raw) && b.raw != nil {
		return true, nil
	}
	// Doubling, so that growing shapes move it seldom; at least one word, so that a
	// value without elements has an address, too.
	words := (max(size, 2*len(b.raw), 8) + 7) / 8
	b.free()
	b.tensor = inference.Tensor{}
	if err := b.tensor.Reset(inference.Uint64, []int64{int64(words)}); err != nil {
		return false, err
	}
	b.raw = b.tensor.Raw()
	b.pin.Pin(&b.raw[0])
	return false, nil
}

func (b *buffer) free() {
	b.pin.Unpin()
	b.raw = nil
}

// binding is one combination of input shapes, made ready: ONNX Runtime's values over
// the model's buffers.
type binding struct {
	shapes  [][]int64 // of the inputs; nil: an optional one that is left out
	views   []int     // inputs that each run shows where they lie
	inputs  []native  // nil: left out, or one of views while there is no run
	outputs []native  // nil where ONNX Runtime allocates, in each run
	results [][]int64 // the shapes of outputs; nil likewise
	placed  int       // how many are not nil
	io      *ort.IoBinding
	native  native // io, for calls
}

// fits tells whether b was made for the shapes of in.
func (b *binding) fits(in []inference.Tensor) bool {
	for i := range in {
		given := in[i].DataType != inference.Invalid
		if given != (b.shapes[i] != nil) || given && !slices.Equal(b.shapes[i], in[i].Shape) {
			return false
		}
	}
	return true
}

func (m *model) destroy(b *binding) {
	if b.io != nil {
		_ = b.io.Destroy() // it fails only on a second call
	}
	for _, values := range [][]native{b.inputs, b.outputs} {
		for _, v := range values {
			if v != nil {
				m.calls.release(v)
			}
		}
	}
}

// find returns the binding for the shapes of in and makes it the most recent, or nil.
func (m *model) find(in []inference.Tensor) *binding {
	for i, b := range m.bindings {
		if b.fits(in) {
			copy(m.bindings[1:], m.bindings[:i])
			m.bindings[0] = b
			return b
		}
	}
	return nil
}

// keep makes b the most recent binding and drops the oldest when there are too many.
func (m *model) keep(b *binding) {
	if len(m.bindings) == maxBindings {
		m.destroy(m.bindings[maxBindings-1])
		m.bindings = m.bindings[:maxBindings-1]
	}
	m.bindings = slices.Insert(m.bindings, 0, b)
}

// drop forgets b.
func (m *model) drop(b *binding) {
	m.bindings = slices.DeleteFunc(m.bindings, func(o *binding) bool { return o == b })
	m.destroy(b)
}

// unbind drops every binding.
func (m *model) unbind() {
	for _, b := range m.bindings {
		m.destroy(b)
	}
	clear(m.bindings)
	m.bindings = m.bindings[:0]
}

// bind makes a binding for the shapes of in, with the outputs that can be told beforehand
// placed in memory of ours, unless the model is distrusted. The caller keeps or drops it.
func (m *model) bind(in []inference.Tensor, distrust bool) (*binding, error) {
	b := &binding{shapes: make([][]int64, len(in)), results: make([][]int64, len(m.outputs))}
	for i := range in {
		if in[i].DataType != inference.Invalid {
			b.shapes[i] = append(make([]int64, 0, len(in[i].Shape)), in[i].Shape...) // not nil
		}
		if viewed(&in[i]) {
			b.views = append(b.views, i)
		}
	}
	batch := m.batch(in)
	for i := range m.outputs {
		if !distrust && placeable(&m.outputs[i], batch) {
			b.results[i] = resultShape(m.outputs[i].Shape, batch)
			b.placed++
		}
	}
	if err := m.reserve(in, b.results); err != nil {
		return nil, err
	}
	if err := m.makeValues(b); err != nil {
		m.destroy(b)
		return nil, err
	}
	return b, nil
}

// reserve makes the buffers large enough for in, as far as it is copied, and for outputs of
// the shapes results.
func (m *model) reserve(in []inference.Tensor, results [][]int64) error {
	stayed := true
	for i := range in {
		if viewed(&in[i]) {
			continue
		}
		s, err := m.in[i].reserve(len(in[i].Raw()))
		if err != nil {
			return err
		}
		stayed = stayed && s
	}
	for i, shape := range results {
		if shape == nil {
			continue
		}
		n, err := inference.Elements(shape)
		if err != nil {
			return err
		}
		s, err := m.out[i].reserve(int(n) * m.outputs[i].DataType.Size())
		if err != nil {
			return err
		}
		stayed = stayed && s
	}
	if !stayed {
		m.unbind()
	}
	return nil
}

// makeValues fills in b's values and binds them.
func (m *model) makeValues(b *binding) (err error) {
	b.inputs = make([]native, len(m.inputs))
	b.outputs = make([]native, len(m.outputs))
	if b.io, err = m.session.CreateIoBinding(); err != nil {
		return err
	}
	if b.native = nativeBinding(b.io); b.native == nil {
		return errors.New("the binding of ONNX Runtime hides its bindings")
	}
	for i, shape := range b.shapes {
		if shape == nil || slices.Contains(b.views, i) {
			continue
		}
		if b.inputs[i], err = m.value(m.inputs[i].DataType, shape, m.in[i].raw); err != nil {
			return err
		}
		if err := m.calls.bindInput(b.native, m.inNames[i], b.inputs[i]); err != nil {
			return err
		}
	}
	for i, shape := range b.results {
		if shape != nil {
			if b.outputs[i], err = m.value(m.outputs[i].DataType, shape, m.out[i].raw); err != nil {
				return err
			}
		}
		if err := m.calls.bindOutput(b.native, m.outNames[i], b.outputs[i]); err != nil {
			return err
		}
	}
	return nil
}

// value returns a value of the shape over the beginning of memory.
func (m *model) value(dt inference.DataType, shape []int64, memory []byte) (value native, err error) {
	n, err := inference.Elements(shape)
	if err != nil {
		return nil, err
	}
	if dt == inference.Bytes {
		return m.calls.tensorOf(dt, shape)
	}
	err = m.calls.tensorOver(dt, shape, memory[:int(n)*dt.Size()], &value)
	return value, err
}
