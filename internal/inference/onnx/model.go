package onnx

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

type model struct {
	session         *ort.DynamicAdvancedSession // nil: closed
	inputs, outputs []inference.TensorInfo
	inNames         []cName
	outNames        []cName
	in, out         []buffer       // the memory behind inputs and outputs
	views           runtime.Pinner // of the inputs that the run in progress reads where they lie
	nothing         native         // a value that is bound where none is wanted: see hide
	distrust        bool           // its declared output shapes are not believed: see placeable
	bindings        []*binding     // most recently used first
	calls           calls
	native          native // session, for calls
	stop            *stop  // of the run in progress; nil: none
	results         results
}

// load makes a session of the file at path.
func load(path string, f form) (*model, error) {
	if strings.ContainsRune(path, 0) {
		return nil, errors.New("its path contains a NUL byte") // C would see another path
	}
	if err := regular(path); err != nil {
		return nil, err
	}
	m := &model{calls: environment.calls}
	options, err := newOptions()
	if err != nil {
		return nil, err
	}
	defer options.Destroy() // it fails only on a second call
	if err := f.apply(options); err != nil {
		return nil, err
	}
	m.session, err = ort.NewDynamicAdvancedSession(path, nil, nil, options) // names are for runs without a binding
	if err != nil {
		return nil, loadError(path, err)
	}
	if m.native = nativeSession(m.session); m.native == nil {
		err = errors.New("the binding of ONNX Runtime hides its session")
	}
	if err == nil {
		err = m.describe()
	}
	if err == nil {
		m.nothing, err = m.calls.tensorOf(inference.FP32, []int64{0})
	}
	if err != nil {
		return nil, errors.Join(err, m.session.Destroy())
	}
	m.in = make([]buffer, len(m.inputs))
	m.out = make([]buffer, len(m.outputs))
	for i := range m.inputs {
		m.inNames = append(m.inNames, newName(m.inputs[i].Name))
	}
	for i := range m.outputs {
		m.outNames = append(m.outNames, newName(m.outputs[i].Name))
	}
	return m, nil
}

// describe reads the names, types and shapes of the inputs and outputs. Initializers that
// a run may replace are optional inputs; in files of an IR before version 4, where every
// initializer is listed as an input, there are none.
func (m *model) describe() error {
	inputs, err := m.calls.describe(m.native, ofInputs)
	if err != nil {
		return err
	}
	initializers, err := m.calls.describe(m.native, ofInitializers)
	if err != nil {
		return err
	}
	outputs, err := m.calls.describe(m.native, ofOutputs)
	if err != nil {
		return err
	}
	if len(outputs) == 0 {
		return errors.New("it has no output")
	}
	for i, d := range append(inputs, initializers...) {
		info, err := tensorInfo("input", &d)
		switch {
		case err == nil:
			info.Optional = i >= len(inputs)
			m.inputs = append(m.inputs, info)
		case i < len(inputs): // an initializer of no use here keeps its value
			return err
		}
	}
	for _, d := range outputs {
		info, err := tensorInfo("output", &d)
		if err != nil {
			return err
		}
		m.outputs = append(m.outputs, info)
	}
	return nil
}

// ONNXType in onnxruntime_c_api.h.
const (
	kindTensor   = 1
	kindSequence = 2
	kindMap      = 3
	kindSparse   = 5
	kindOptional = 6
)

// tensorInfo is one input or output in the protocol's words, or why it cannot be carried.
func tensorInfo(side string, d *described) (inference.TensorInfo, error) {
	what, remedy := "", ""
	switch {
	case d.kind == kindTensor:
		dt := dataType(d.element)
		if dt == inference.Invalid {
			return inference.TensorInfo{}, fmt.Errorf("%s %q has elements of type %s, which the protocol has not; cast it to another type in the model",
				side, d.name, strings.TrimPrefix(d.element.String(), "ONNX_TENSOR_ELEMENT_DATA_TYPE_"))
		}
		return inference.TensorInfo{Name: d.name, DataType: dt, Shape: d.shape, AnyShape: d.anyShape}, nil
	case d.kind == kindSequence && d.inner == kindMap:
		what, remedy = "a sequence of maps", "export the model with zipmap off"
	case d.kind == kindSequence:
		what, remedy = "a sequence of tensors", "export the model with one "+side+" for each, or with one that joins them"
	case d.kind == kindMap:
		what, remedy = "a map", "export the model with zipmap off"
	case d.kind == kindSparse:
		what, remedy = "a sparse tensor", "export the model with a dense one"
	case d.kind == kindOptional:
		what, remedy = "an optional value", "export the model with a tensor in its place"
	default:
		what, remedy = "of a type of its own", "export the model with a tensor in its place"
	}
	return inference.TensorInfo{}, fmt.Errorf("%s %q is %s, which the protocol has no tensor for; %s", side, d.name, what, remedy)
}

// newOptions returns what every session has: one thread, which is the caller's, and
// silence. Errors come back from the calls; ONNX Runtime would log each of them too,
// so that a client could fill the log with refused values.
func newOptions() (*ort.SessionOptions, error) {
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		options.SetIntraOpNumThreads(1),
		options.SetInterOpNumThreads(1),
		options.SetExecutionMode(ort.ExecutionModeSequential),
		options.SetLogSeverityLevel(ort.LoggingLevelFatal),
		// Else the name or the first bytes of a file choose its format, and ONNX
		// Runtime's own one is read with less care.
		options.AddSessionConfigEntry("session.load_model_format", "ONNX"),
	); err != nil {
		return nil, errors.Join(err, options.Destroy())
	}
	for _, path := range environment.custom {
		if err := environment.calls.registerOperators(nativeSettings(options), path); err != nil {
			return nil, errors.Join(fmt.Errorf("load custom operators from %s: %w", path, err), options.Destroy())
		}
	}
	return options, nil
}

// Inputs implements inference.Model.
func (m *model) Inputs() []inference.TensorInfo { return m.inputs }

// Outputs implements inference.Model.
func (m *model) Outputs() []inference.TensorInfo { return m.outputs }

// Close implements inference.Model. A second call does nothing.
func (m *model) Close() error {
	environment.Lock()
	defer environment.Unlock()
	if m.session == nil {
		return nil
	}
	environment.models--
	return m.free()
}

// free frees what load made.
func (m *model) free() error {
	m.unbind()
	for _, buffers := range [][]buffer{m.in, m.out} {
		for i := range buffers {
			buffers[i].free()
		}
	}
	for _, names := range [][]cName{m.inNames, m.outNames} {
		for _, n := range names {
			freeName(n)
		}
	}
	m.calls.release(m.nothing)
	err := m.session.Destroy()
	m.session, m.native = nil, nil
	return err
}
