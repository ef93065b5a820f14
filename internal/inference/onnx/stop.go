package onnx

import (
	"errors"
	"fmt"
	"sync/atomic"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

// stop is a flag that ONNX Runtime looks at before each operator of a run.
type stop struct {
	options *ort.RunOptions
	native  native
	set     atomic.Bool
}

// NewStop implements inference.Engine.
func (e *engine) NewStop() (inference.Stop, error) {
	environment.Lock()
	defer environment.Unlock()
	if !environment.open {
		return nil, errors.New("the engine is closed")
	}
	options, err := ort.NewRunOptions()
	if err != nil {
		return nil, fmt.Errorf("make run options: %w", err)
	}
	s := &stop{options: options, native: nativeOptions(options)}
	if s.native == nil {
		return nil, errors.Join(errors.New("the binding of ONNX Runtime hides its run options"), options.Destroy())
	}
	environment.stops = append(environment.stops, s)
	return s, nil
}

// Set implements inference.Stop.
func (s *stop) Set() {
	s.set.Store(true)
	_ = s.options.Terminate() // it fails only on options that were destroyed
}

// Clear implements inference.Stop.
func (s *stop) Clear() {
	_ = s.options.UnsetTerminate()
	s.set.Store(false)
}

// stopped tells whether the run in progress was told to stop: an error is then no error
// of its own.
func (m *model) stopped() bool { return m.stop != nil && m.stop.set.Load() }

// call runs what b is bound to.
func (m *model) call(b *binding) error {
	var options native
	if m.stop != nil {
		options = m.stop.native
	}
	return m.calls.run(m.native, options, b.native)
}
