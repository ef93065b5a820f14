package onnx

import (
	"errors"
	"fmt"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

type model struct {
	session         *ort.DynamicAdvancedSession // nil: closed
	inputs, outputs []inference.TensorInfo
	in, out         []buffer // the memory behind inputs and outputs
	trust           trust
	bindings        []*binding // most recently used first
	calls           calls
	native          native // session, for calls
	stop            *stop  // of the run in progress; nil: none
}

// load makes a session of the file at path.
func load(path string) (*model, error) {
	if strings.ContainsRune(path, 0) {
		return nil, errors.New("its path contains a NUL byte") // C would see another path
	}
	if err := regular(path); err != nil {
		return nil, err
	}
	m := &model{calls: environment.calls}
	if err := m.describe(path); err != nil {
		return nil, err
	}
	options, err := newOptions()
	if err != nil {
		return nil, err
	}
	defer options.Destroy() // it fails only on a second call
	m.session, err = ort.NewDynamicAdvancedSession(path, names(m.inputs), names(m.outputs), options)
	if err != nil {
		return nil, loadError(path, err)
	}
	m.native = nativeSession(m.session)
	m.in = make([]buffer, len(m.inputs))
	m.out = make([]buffer, len(m.outputs))
	return m, nil
}

// describe reads the names, types and shapes of the inputs and outputs. The binding
// tells them only of a session that it makes for the purpose and ends again, so that
// one is made without the optimizations.
func (m *model) describe(path string) error {
	options, err := newOptions()
	if err != nil {
		return err
	}
	defer options.Destroy() // it fails only on a second call
	if err := errors.Join(
		options.SetGraphOptimizationLevel(ort.GraphOptimizationLevelDisableAll),
		options.AddSessionConfigEntry("session.disable_prepacking", "1"),
	); err != nil {
		return err
	}
	inputs, outputs, err := ort.GetInputOutputInfoWithOptions(path, options)
	if err != nil {
		return loadError(path, err)
	}
	if len(inputs) == 0 || len(outputs) == 0 {
		return fmt.Errorf("it has %d inputs and %d outputs, at least one of each is needed",
			len(inputs), len(outputs))
	}
	open := false // some input leaves its first dimension open
	for _, i := range inputs {
		info, err := tensorInfo("input", i)
		if err != nil {
			return err
		}
		open = open || len(info.Shape) > 0 && info.Shape[0] < 0
		m.inputs = append(m.inputs, info)
	}
	for _, o := range outputs {
		info, err := tensorInfo("output", o)
		if err != nil {
			return err
		}
		if elements[info.DataType].raw == nil && !derivable(info.Shape, open) {
			return fmt.Errorf("output %q is %s with the shape %v: of this type, only the first dimension may be open",
				info.Name, info.DataType, info.Shape)
		}
		m.outputs = append(m.outputs, info)
	}
	return nil
}

// tensorInfo is one input or output in the protocol's words, or why it cannot be carried.
// The binding tells a shape that the model leaves open altogether as one without
// dimensions: such an output works, such an input takes scalars only.
func tensorInfo(kind string, i ort.InputOutputInfo) (inference.TensorInfo, error) {
	if i.OrtValueType != ort.ONNXTypeTensor {
		return inference.TensorInfo{}, fmt.Errorf("%s %q is a %s, only tensors are supported",
			kind, i.Name, strings.ToLower(strings.TrimPrefix(i.OrtValueType.String(), "ONNX_TYPE_")))
	}
	dt := dataType(i.DataType)
	if dt == inference.Invalid {
		return inference.TensorInfo{}, fmt.Errorf("%s %q has elements of type %s, which is not supported",
			kind, i.Name, strings.TrimPrefix(i.DataType.String(), "ONNX_TENSOR_ELEMENT_DATA_TYPE_"))
	}
	if len(i.Dimensions) == 0 && elements[dt].scalar == nil {
		return inference.TensorInfo{}, fmt.Errorf("%s %q is a scalar of type %s, which is not supported",
			kind, i.Name, dt)
	}
	return inference.TensorInfo{Name: i.Name, DataType: dt, Shape: i.Dimensions}, nil
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
	return options, nil
}

func names(infos []inference.TensorInfo) []string {
	var s []string
	for _, info := range infos {
		s = append(s, info.Name)
	}
	return s
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
	m.unbind()
	for _, buffers := range [][]buffer{m.in, m.out} {
		for i := range buffers {
			buffers[i].free()
		}
	}
	err := m.session.Destroy()
	m.session, m.native = nil, nil
	environment.models--
	return err
}
