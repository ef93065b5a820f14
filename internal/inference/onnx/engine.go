package onnx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// environment is what the binding allows once in a process. It guards its state, and
// with it every call of the binding that is not about one model.
var environment struct {
	sync.Mutex
	open   bool
	models int // loaded and not closed
	calls  calls
	stops  []*stop
	custom []string // libraries of operators
}

type engine struct {
	version string
}

// Open loads ONNX Runtime from the shared library at path, or in the dynamic loader's
// places when path is a bare name. A process has at most one open engine. A library
// that is missing, unusable or too old is an *ipc.Failure.
func Open(path string) (inference.Engine, error) { return OpenAs(path, path, nil) }

// OpenAs is Open for a path that tells operators nothing, such as that of a descriptor:
// errors call the library by name. custom are the paths of shared libraries with operators
// that models use; one that is missing or refuses is an *ipc.Failure as well.
func OpenAs(library, name string, custom []string) (inference.Engine, error) {
	environment.Lock()
	defer environment.Unlock()
	if environment.open {
		return nil, errors.New("open ONNX Runtime: it is open already")
	}
	if strings.Contains(library, "/") {
		// The dynamic loader's own words for this are longer and name the path twice.
		if err := regular(library); err != nil {
			return nil, unavailable(name, err)
		}
	}
	ort.SetSharedLibraryPath(library)
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return nil, unavailable(name, loaderError(err))
	}
	if err := ort.DisableTelemetry(); err != nil {
		return nil, errors.Join(unavailable(name, err), ort.DestroyEnvironment())
	}
	c, err := findCalls(library)
	if err != nil {
		return nil, errors.Join(unavailable(name, err), ort.DestroyEnvironment())
	}
	environment.calls = c
	if err := tryOperators(custom); err != nil {
		c.close()
		return nil, errors.Join(err, ort.DestroyEnvironment())
	}
	environment.open, environment.custom = true, custom
	return &engine{version: ort.GetVersion()}, nil
}

// tryOperators registers each library for no session, so that one which cannot be used is
// found before any model is loaded.
func tryOperators(custom []string) error {
	for _, path := range custom {
		err := regular(path)
		if err == nil {
			options, made := ort.NewSessionOptions()
			if made != nil {
				return made
			}
			err = errors.Join(environment.calls.registerOperators(nativeSettings(options), path), options.Destroy())
		}
		if err != nil {
			return &ipc.Failure{
				Exit: ipc.ExitUnavailable,
				What: fmt.Sprintf("load custom operators from %s: %s", path, strings.ReplaceAll(tidy(err), path+": ", "")),
				Try:  "set inference.custom_ops to shared libraries that have RegisterCustomOps and were built for this ONNX Runtime",
				Err:  err,
			}
		}
	}
	return nil
}

// Platform implements inference.Engine.
func (e *engine) Platform() string { return "onnxruntime_onnx" }

// Version implements inference.Engine.
func (e *engine) Version() string { return e.version }

// Load implements inference.Engine.
func (e *engine) Load(path string) (inference.Model, error) { return e.load(path, asItIs) }

// LoadPrepared implements inference.Engine.
func (e *engine) LoadPrepared(dir string) (inference.Model, error) {
	return e.load(filepath.Join(dir, preparedGraph), prepared)
}

func (e *engine) load(path string, f form) (inference.Model, error) {
	environment.Lock()
	defer environment.Unlock()
	if !environment.open {
		return nil, errors.New("the engine is closed")
	}
	m, err := load(path, f)
	if err != nil {
		return nil, err
	}
	environment.models++
	return m, nil
}

// Close implements inference.Engine. With models that are still open it is an error
// and changes nothing: unloading the library under them would end the process.
func (e *engine) Close() error {
	environment.Lock()
	defer environment.Unlock()
	if !environment.open {
		return errors.New("close ONNX Runtime: it is not open")
	}
	if environment.models > 0 {
		return fmt.Errorf("close ONNX Runtime: %d models are still open", environment.models)
	}
	for _, s := range environment.stops {
		_ = s.options.Destroy() // it fails only on a second call
	}
	environment.calls.close()
	environment.open, environment.stops, environment.custom, environment.calls = false, nil, nil, calls{}
	return ort.DestroyEnvironment()
}

// regular returns an error unless path is a file that can be read.
func regular(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return errors.Unwrap(err) // without the path: callers have named it
	}
	defer f.Close() // nothing was written
	switch info, err := f.Stat(); {
	case err != nil:
		return errors.Unwrap(err)
	case info.IsDir():
		return errors.New("it is a directory")
	case info.Mode().IsRegular() && info.Size() == 0:
		return errors.New("the file is empty")
	}
	return nil
}

func unavailable(library string, err error) error {
	return &ipc.Failure{
		Exit: ipc.ExitUnavailable,
		What: fmt.Sprintf("load ONNX Runtime from %s: %v", library, err),
		Try: "run make, or set inference.library or ONNXRUNTIME to a libonnxruntime.so" +
			" of version 1.24 or later",
		Err: err,
	}
}
