package ipc

import "encoding/json"

// Manifest is what one generation of workers runs. It is made once, before the
// first worker of the generation starts, and never changes: every worker, crash
// replacements included, starts from the same bytes, whatever lies on disk by then.
type Manifest struct {
	Generation uint64          `json:"generation"`
	Settings   json.RawMessage `json:"settings"` // config.Config, resolved
	// Library is the engine's: its path, or a bare name for the dynamic loader. A worker that
	// inherits FDLibrary loads that file, whatever lies at the path by now.
	Library string      `json:"library"`
	Models  []ModelFile `json:"models"`
	// Outlives says that connections which wait in the pool's queue outlive the service: the
	// next start of it takes them.
	Outlives bool `json:"outlives,omitempty"`
}

// ModelFile is one version of one model, by the content of its file.
type ModelFile struct {
	Name    string        `json:"name"`
	Version string        `json:"version"` // decimal, as its directory is called
	Source  string        `json:"source"`  // where the operator put it; for messages
	Path    string        `json:"path"`    // the copy in the cache; this is what is loaded
	Digest  string        `json:"digest"`  // hexadecimal SHA-256 over the files of the version
	Bytes   int64         `json:"bytes"`   // of those files together
	Files   []string      `json:"files"`   // their names below the directory of Path
	Options ModelSettings `json:"options"` // its config.yaml
	// Row is its row of the scoreboard's section models, from 1 on; 0: it has none, and
	// nobody can be told that it is quarantined.
	Row int `json:"row,omitempty"`
	// Warmup is its warmup.json, empty without one.
	Warmup []WarmupCase `json:"warmup,omitempty"`
}

// WarmupCase is one request of a model's warmup.json, which a new worker answers before
// it may serve, with the answer that is expected.
type WarmupCase struct {
	// Request is the body of an inference request, as clients send it.
	Request json.RawMessage `json:"request"`
	// Outputs are expected values by name of output, flat and row-major; outputs that
	// are not named need only be finite.
	Outputs map[string][]float64 `json:"outputs,omitempty"`
	// Tolerance is how far a value may be from the expected one.
	Tolerance float64 `json:"tolerance,omitempty"`
}

// ModelSettings is the content of a model's config.yaml; the zero value is that of
// a model without one.
type ModelSettings struct {
	// Version to serve; empty: the highest.
	Version string `yaml:"version" json:"version,omitempty"`
	// Description is shown to people.
	Description string          `yaml:"description" json:"description,omitempty"`
	Predict     PredictSettings `yaml:"predict" json:"predict"`
	// Labels are names of versions, such as stable or canary.
	Labels map[string]string `yaml:"labels" json:"labels,omitempty"`
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
