package ipc

import (
	"encoding/json"
	"time"
)

// WarmupCase is one request that a new worker answers before it may serve, with the
// answer that is expected. It has a Request or Inputs.
type WarmupCase struct {
	// Request is the body of an inference request, as clients send it.
	Request json.RawMessage `json:"request,omitempty"`
	// Inputs are tensors that a config.pbtxt describes.
	Inputs []WarmupInput `json:"inputs,omitempty"`
	// From is where it is written, for messages.
	From string `json:"from,omitempty"`
	// Outputs are expected values by name of output, flat and row-major; outputs that
	// are not named need only be finite.
	Outputs map[string][]float64 `json:"outputs,omitempty"`
	// Tolerance is how far a value may be from the expected one.
	Tolerance float64 `json:"tolerance,omitempty"`
}

// WarmupInput is one tensor of a WarmupCase.
type WarmupInput struct {
	Name     string  `json:"name"`
	DataType string  `json:"datatype"` // the protocol's name, such as FP32
	Shape    []int64 `json:"shape"`
	Random   bool    `json:"random,omitempty"` // else zeros, or Data
	File     string  `json:"file,omitempty"`   // the model's warmup/File holds Data
	Data     []byte  `json:"data,omitempty"`   // little endian
}

// ModelSettings is the content of a model's config.yaml or config.pbtxt; the zero value
// is that of a model without either.
type ModelSettings struct {
	// Version is served to those who name none, and is the only one that is loaded unless
	// Versions says otherwise; empty: the highest.
	Version string `yaml:"version" json:"version,omitempty"`
	// Versions are those that are loaded.
	Versions VersionPolicy `yaml:"versions" json:"versions,omitzero"`
	// Labels are names for versions.
	Labels map[string]string `yaml:"labels" json:"labels,omitempty"`
	// Description is shown to people.
	Description string          `yaml:"description" json:"description,omitempty"`
	Predict     PredictSettings `yaml:"predict" json:"predict"`
	Limits      ModelLimits     `yaml:"limits" json:"limits,omitzero"`
	// MaxBatchSize is the largest first dimension of a request, and of requests that are
	// joined into one run; 0: the graph decides, and none are.
	MaxBatchSize int64 `yaml:"max_batch_size" check:"0..1000000000" json:"max_batch_size,omitempty"`
	// MaxQueueDelay is how long a request waits for others to be joined to while nothing runs.
	MaxQueueDelay time.Duration `yaml:"max_queue_delay" check:"0s..1m" json:"max_queue_delay,omitempty"`
	// NoBatching keeps requests apart whatever MaxBatchSize is.
	NoBatching bool `yaml:"no_batching" json:"no_batching,omitempty"`

	// File is where the settings are from; empty: there is no file.
	File string `yaml:"-" json:"file,omitempty"`
	// What follows is a config.pbtxt's alone.
	Platform   string            `yaml:"-" json:"platform,omitempty"`
	Backend    string            `yaml:"-" json:"backend,omitempty"`
	Filename   string            `yaml:"-" json:"filename,omitempty"` // empty: DefaultModelFile
	Inputs     []TensorSettings  `yaml:"-" json:"inputs,omitempty"`
	Outputs    []TensorSettings  `yaml:"-" json:"outputs,omitempty"`
	Batching   *BatchSettings    `yaml:"-" json:"batching,omitempty"`
	Parameters map[string]string `yaml:"-" json:"parameters,omitempty"`
	// Warmup are requests; those with files have no data yet.
	Warmup []WarmupCase `yaml:"-" json:"-"`
}

// DefaultModelFile is the graph's file in a version's directory.
const DefaultModelFile = "model.onnx"

// ModelFile returns the graph's file in a version's directory.
func (s *ModelSettings) ModelFile() string {
	if s.Filename == "" {
		return DefaultModelFile
	}
	return s.Filename
}

// VersionPolicy chooses versions of a model: one of its fields is set, or none, which is
// the highest version alone.
type VersionPolicy struct {
	Latest   int      `yaml:"latest" check:"1..1000000" optional:"true" json:"latest,omitempty"` // so many of the highest
	All      bool     `yaml:"all" short:"all" json:"all,omitempty"`
	Specific []string `yaml:"specific" short:"list" json:"specific,omitempty"`
	// At is where it is written, for messages; empty: not known.
	At string `yaml:"-" json:"at,omitempty"`
}

// ModelLimits narrow for one model what holds for all; 0: they do not.
type ModelLimits struct {
	// Timeout is how long one request may take, waiting included.
	Timeout time.Duration `yaml:"timeout" check:"1ms..24h" optional:"true" json:"timeout,omitempty"`
	// MaxBody is the largest request body that is read, in bytes.
	MaxBody int64 `yaml:"max_body" unit:"bytes" check:"1KiB..16GiB" optional:"true" json:"max_body,omitempty"`
}

// TensorSettings is what a config.pbtxt says of an input or an output. The graph must
// agree when it is loaded.
type TensorSettings struct {
	Name     string  `json:"name"`
	DataType string  `json:"datatype,omitempty"` // the protocol's name, such as FP32
	Dims     []int64 `json:"dims"`               // without the batch's; -1: any size
	Reshape  []int64 `json:"reshape,omitempty"`  // the graph's instead of Dims
	Reshaped bool    `json:"reshaped,omitempty"` // Reshape counts, which may be empty
	At       string  `json:"at,omitempty"`       // where it is written, for messages
}

// Graph returns the sizes that the graph must have, without the batch's.
func (t *TensorSettings) Graph() []int64 {
	if t.Reshaped {
		return t.Reshape
	}
	return t.Dims
}

// BatchSettings is what a config.pbtxt says of batches beside MaxBatchSize and
// MaxQueueDelay; it is shown to clients who ask, and changes nothing.
type BatchSettings struct {
	Preferred     []int64 `json:"preferred,omitempty"`
	PreserveOrder bool    `json:"preserve_order,omitempty"`
}

// PredictSettings names the tensors that POST /predict uses. An empty name is
// derived from the model: its only input, its first integer output, its first
// floating-point output.
type PredictSettings struct {
	Input         string `yaml:"input" json:"input,omitempty"`
	Label         string `yaml:"label" json:"label,omitempty"`
	Probabilities string `yaml:"probabilities" json:"probabilities,omitempty"`
	// Sample is one row of features that people may try the model with.
	Sample []float32 `yaml:"sample" json:"sample,omitempty"`
}
