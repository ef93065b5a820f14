package onnx

import "preforkd/internal/inference"

// copied is how many bytes of an input are copied into the memory that a binding's values
// point to. A larger input is read where it lies, in the caller's tensor: ONNX Runtime gets
// a value over that memory, for one run. At this size both cost about the same, a
// microsecond; and memory of our own that once was large would stay so.
//
// The value is ONNX Runtime's, three small pieces of native memory. Go's allocator is
// asked for nothing, except, in some first runs, for the 64 bytes of runtime.Pinner.
//
// Tensors are aligned for their type (inference.Tensor), and ONNX Runtime wants no more.
const copied = 64 << 10

// viewed tells whether a run reads t where it lies. The elements of a BOOL may have to be
// changed, and strings are ONNX Runtime's own.
func viewed(t *inference.Tensor) bool {
	switch t.DataType {
	case inference.Invalid, inference.Bool, inference.Bytes:
		return false
	}
	return len(t.Raw()) > copied
}

// show binds the large inputs of a run to the memory of in, which is pinned: ONNX Runtime
// keeps its address between calls. Whoever called show calls hide, also after an error.
func (m *model) show(b *binding, in []inference.Tensor) error {
	for _, i := range b.views {
		raw := in[i].Raw()
		m.views.Pin(&raw[0])
		if err := m.calls.tensorOver(in[i].DataType, b.shapes[i], raw, &b.inputs[i]); err != nil {
			return err
		}
		if err := m.calls.bindInput(b.native, m.inNames[i], b.inputs[i]); err != nil {
			return err
		}
	}
	return nil
}

// hide takes back what show has bound: afterwards nothing of b points to memory of the
// caller's. What takes its place is replaced before the next run. If that fails, b is of
// no further use.
func (m *model) hide(b *binding) (err error) {
	for _, i := range b.views {
		if b.inputs[i] == nil {
			continue
		}
		if e := m.calls.bindInput(b.native, m.inNames[i], m.nothing); e != nil {
			err = e
		}
		m.calls.release(b.inputs[i])
		b.inputs[i] = nil
	}
	m.views.Unpin()
	return err
}
