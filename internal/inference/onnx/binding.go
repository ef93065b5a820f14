package onnx

import (
	"bytes"
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
	// Doubling, so that growing shapes move it seldom; at least one word, because the
	// binding refuses a value without memory even where its shape has no elements.
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
	shapes  [][]int64 // of the inputs
	scalars [][]byte  // the values of inputs without dimensions, else nil: see bind
	inputs  []ort.Value
	outputs []ort.Value    // nil where ONNX Runtime allocates
	results [][]int64      // the shapes of outputs
	io      *ort.IoBinding // nil when an output is allocated
	native  native         // io, for calls
}

// fits tells whether b was made for the shapes of in.
func (b *binding) fits(in []inference.Tensor) bool {
	for i := range in {
		if !slices.Equal(b.shapes[i], in[i].Shape) {
			return false
		}
		if b.scalars[i] != nil && !bytes.Equal(b.scalars[i], in[i].Raw()) {
			return false
		}
	}
	return true
}

func (b *binding) destroy() {
	if b.io != nil {
		_ = b.io.Destroy() // these never fail
	}
	for _, values := range [][]ort.Value{b.inputs, b.outputs} {
		for _, v := range values {
			if v != nil {
				_ = v.Destroy()
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
		m.bindings[maxBindings-1].destroy()
		m.bindings = m.bindings[:maxBindings-1]
	}
	m.bindings = slices.Insert(m.bindings, 0, b)
}

// drop forgets b.
func (m *model) drop(b *binding) {
	m.bindings = slices.DeleteFunc(m.bindings, func(o *binding) bool { return o == b })
	b.destroy()
}

// unbind drops every binding.
func (m *model) unbind() {
	for _, b := range m.bindings {
		b.destroy()
	}
	clear(m.bindings)
	m.bindings = m.bindings[:0]
}

// bind makes a binding for the shapes of in, with the outputs that t lets it place. The
// caller keeps or drops it.
func (m *model) bind(in []inference.Tensor, t trust) (*binding, error) {
	b := &binding{
		shapes:  make([][]int64, len(in)),
		scalars: make([][]byte, len(in)),
		results: make([][]int64, len(m.outputs)),
	}
	for i := range in {
		b.shapes[i] = slices.Clone(in[i].Shape)
		if len(in[i].Shape) == 0 {
			// The binding cannot change a scalar's value, so the value is part of
			// what is bound. In practice such inputs are settings: few values.
			b.scalars[i] = bytes.Clone(in[i].Raw())
		}
	}
	batch := m.batch(in)
	for i := range m.outputs {
		if t.places(&m.outputs[i], batch) {
			b.results[i] = resultShape(m.outputs[i].Shape, batch)
		}
	}
	if err := m.reserve(in, b.results); err != nil {
		return nil, err
	}
	if err := m.makeValues(b); err != nil {
		b.destroy()
		return nil, err
	}
	return b, nil
}

// reserve makes the buffers large enough for in and for outputs of the shapes results.
func (m *model) reserve(in []inference.Tensor, results [][]int64) error {
	stayed := true
	for i := range in {
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

// makeValues fills in b's values, and its io when every output has one.
func (m *model) makeValues(b *binding) error {
	b.inputs = make([]ort.Value, len(m.inputs))
	b.outputs = make([]ort.Value, len(m.outputs))
	complete := true
	for i, shape := range b.shapes {
		v, err := makeValue(m.inputs[i].DataType, shape, m.in[i].raw, b.scalars[i])
		if err != nil {
			return err
		}
		b.inputs[i] = v
	}
	for i, shape := range b.results {
		if shape == nil {
			complete = false
			continue
		}
		v, err := makeValue(m.outputs[i].DataType, shape, m.out[i].raw, m.out[i].raw)
		if err != nil {
			return err
		}
		b.outputs[i] = v
	}
	if !complete {
		return nil
	}
	io, err := m.session.CreateIoBinding()
	if err != nil {
		return err
	}
	b.io, b.native = io, nativeBinding(io)
	for i, v := range b.inputs {
		if err := io.BindInput(m.inputs[i].Name, v); err != nil {
			return err
		}
	}
	for i, v := range b.outputs {
		if err := io.BindOutput(m.outputs[i].Name, v); err != nil {
			return err
		}
	}
	return nil
}

// makeValue returns a value over memory, or a copy of scalar when shape has no
// dimensions: the binding allows none over memory of ours there.
func makeValue(dt inference.DataType, shape []int64, memory, scalar []byte) (ort.Value, error) {
	if len(shape) == 0 {
		return elements[dt].scalar(scalar)
	}
	v, err := ort.NewCustomDataTensor(shape, memory, elements[dt].code)
	if err != nil {
		return nil, err
	}
	return v, nil
}
