package onnx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

// What Prepare writes: the graph, optimised, and its initializers, packed as this machine's
// kernels want them. Sessions map the second file and share its pages.
const (
	preparedGraph   = inference.PreparedFile
	preparedWeights = "weights.bin"
)

// Initializers of so many bytes and more go into the file of weights.
const sharedFrom = "1024"

// Session options of onnxruntime_session_options_config_keys.h.
const (
	keyWeightsFile = "session.optimized_model_external_initializers_file_name"
	keyWeightsFrom = "session.optimized_model_external_initializers_min_size_in_bytes"
	keyPrepacked   = "session.save_external_prepacked_constant_initializers"
)

// Prepare implements inference.Engine.
func (e *engine) Prepare(path, dir string) error {
	environment.Lock()
	defer environment.Unlock()
	if !environment.open {
		return errors.New("the engine is closed")
	}
	if err := regular(path); err != nil {
		return err
	}
	graph := filepath.Join(dir, preparedGraph)
	if strings.ContainsRune(path+graph, 0) {
		return errors.New("a path contains a NUL byte")
	}
	options, err := newOptions()
	if err != nil {
		return err
	}
	defer options.Destroy() // it fails only on a second call
	if err := errors.Join(
		options.SetGraphOptimizationLevel(ort.GraphOptimizationLevelEnableAll),
		options.SetOptimizedModelFilePath(graph),
		options.AddSessionConfigEntry(keyWeightsFile, preparedWeights),
		options.AddSessionConfigEntry(keyWeightsFrom, sharedFrom),
		options.AddSessionConfigEntry(keyPrepacked, "1"),
	); err != nil {
		return err
	}
	session, err := ort.NewDynamicAdvancedSession(path, nil, nil, options)
	if err != nil {
		return loadError(path, err)
	}
	if err := session.Destroy(); err != nil {
		return err
	}
	if info, err := os.Stat(graph); err != nil || info.Size() == 0 {
		return errors.Join(errors.New("ONNX Runtime has written no prepared graph"), err)
	}
	return sameFace(path, graph)
}

// sameFace returns an error unless the prepared model has the inputs and outputs of the
// one that it was made of. It has one of them in memory at a time.
func sameFace(path, graph string) error {
	plainInputs, plainOutputs, err := face(path, asItIs)
	if err != nil {
		return err
	}
	inputs, outputs, err := face(graph, prepared)
	if err != nil {
		return fmt.Errorf("load what was prepared: %w", err)
	}
	if !slices.EqualFunc(plainInputs, inputs, sameTensor) || !slices.EqualFunc(plainOutputs, outputs, sameTensor) {
		return fmt.Errorf("what was prepared has other inputs or outputs: %v and %v, not %v and %v", inputs, outputs, plainInputs, plainOutputs)
	}
	return nil
}

// face loads a model, frees it and returns what its inputs and outputs were.
func face(path string, f form) (inputs, outputs []inference.TensorInfo, err error) {
	m, err := load(path, f)
	if err != nil {
		return nil, nil, err
	}
	return m.inputs, m.outputs, m.free()
}

func sameTensor(a, b inference.TensorInfo) bool {
	return a.Name == b.Name && a.DataType == b.DataType && slices.Equal(a.Shape, b.Shape) && a.AnyShape == b.AnyShape && a.Optional == b.Optional
}

// form is what kind of file a session is made of.
type form bool

const (
	asItIs   form = false
	prepared form = true // by Prepare: there is nothing left to optimise
)

// apply makes the options those of f.
func (f form) apply(options *ort.SessionOptions) error {
	if f == asItIs {
		return nil
	}
	return options.SetGraphOptimizationLevel(ort.GraphOptimizationLevelDisableAll)
}
