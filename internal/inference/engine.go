package inference

// Engine loads models. Load and Close may be called from any goroutine, one call
// at a time.
type Engine interface {
	// Platform is the name that the protocol reports, such as "onnxruntime_onnx".
	Platform() string
	// Version is the version of the engine's library.
	Version() string
	// Load reads the model at path and makes it ready to run. The error says what
	// is wrong with the file, without naming it: the caller knows a better name.
	Load(path string) (Model, error)
	// Prepare writes into dir, which is empty, what LoadPrepared loads: a model equal to the
	// one at path, optimised, whose weights every process that loads it maps from the same
	// file, so that all share one copy. It takes as much memory as both together and belongs into
	// a process of its own. It is for engines of this version on CPUs of these features.
	Prepare(path, dir string) error
	// LoadPrepared is Load of what Prepare has written into dir. Nobody may change those
	// files while the model is open, least of all make them shorter.
	LoadPrepared(dir string) (Model, error)
	// NewStop returns a Stop for runs of this engine's models. It lives as long as
	// the engine.
	NewStop() (Stop, error)
	// Close frees the engine; every Model must have been closed before.
	Close() error
}

// PreparedFile is the file that Prepare writes last, beside others.
const PreparedFile = "model.onnx"

// Model is one loaded model.
type Model interface {
	// Inputs and Outputs describe the tensors in the model's own order, of the inputs
	// those that are optional last. Callers do not change what they return.
	Inputs() []TensorInfo
	Outputs() []TensorInfo
	// Run runs the model once. in[i] is the value of Inputs()[i], its type and
	// shape already checked with TensorInfo.Check, or Invalid for an optional one that
	// is left out; it is only read, and not kept after Run returns. Until then its memory
	// must stay as it is, whoever has given up waiting: a large one is not copied. out[i]
	// receives Outputs()[i]: Run sets its name, type and shape and reuses its memory, so that a caller who keeps out between calls
	// allocates nothing in the steady state. len(out) == len(Outputs()).
	//
	// An error wraps ErrInput when the values are at fault (a shape that the
	// graph refuses), else the engine is.
	Run(in, out []Tensor) error
	// RunUntil is Run that ends early, with an error that wraps ErrStopped, once stop
	// is set: where the engine looks, which is between two of the model's operators,
	// so that it may take long, or not happen at all. stop may be nil.
	RunUntil(stop Stop, in, out []Tensor) error
	// Close frees the model. Run must not be called afterwards.
	Close() error
}

// Stop asks runs to end early. Both methods may be called from any goroutine.
type Stop interface {
	// Set stops the runs that were begun with it, and those that will be.
	Set()
	// Clear lets the next ones run.
	Clear()
}

// TensorInfo describes one input or output of a model.
type TensorInfo struct {
	Name     string
	DataType DataType
	Shape    []int64 // -1: any size
	// AnyShape: any number of dimensions, of any size; Shape is nil.
	AnyShape bool
	// Optional: an input that has a value of its own where none is given.
	Optional bool
}
