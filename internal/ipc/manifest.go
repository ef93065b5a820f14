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
	// Unloaded are models that are not served.
	Unloaded []UnloadedModel `json:"unloaded,omitempty"`
	// Outlives says that connections which wait in the pool's queue outlive the service: the
	// next start of it takes them.
	Outlives bool `json:"outlives,omitempty"`
	// Sockets are what is spoken on the listening sockets, in their order.
	Sockets []Socket `json:"sockets,omitempty"`
	Tokens  Tokens   `json:"tokens,omitempty"`
	Seed    []byte   `json:"seed,omitempty"` // of the keys of TLS session tickets
	// Tasks is the queue of background tasks; nil: there is none.
	Tasks *TaskQueue `json:"tasks,omitempty"`
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
	Options ModelSettings `json:"options"` // its config.yaml or config.pbtxt
	// Row is its row of the scoreboard's section models, from 1 on; 0: it has none, and
	// nobody can be told that it is quarantined.
	Row int `json:"row,omitempty"`
	// Warmup are the requests of its warmup.json and its config.pbtxt.
	Warmup []WarmupCase `json:"warmup,omitempty"`
	// Prepared is the directory of the same model, prepared: it is loaded instead. Empty: there
	// is none.
	Prepared string `json:"prepared,omitempty"`
	// Shared is how many bytes of weights all who load Prepared map from one file.
	Shared int64 `json:"shared,omitempty"`
}

// UnloadedModel is a version of a model that is known and not served.
type UnloadedModel struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Reason  string `json:"reason"`
}

// ModelChange names a change of the models of a pool. Numbers are from 1 on, and each is
// greater than those before.
type ModelChange struct {
	Number uint64 `json:"number"`
	// File holds a ModelSet: it may be larger than a message. Only ControlPrepare has it.
	File string `json:"file,omitempty"`
}

// ModelSet is all that a pool has of models after a change.
type ModelSet struct {
	Models   []ModelFile     `json:"models"`
	Unloaded []UnloadedModel `json:"unloaded,omitempty"`
}

// MemoryReport is what a worker has of its models. It comes in parts where there are many.
type MemoryReport struct {
	First  bool          `json:"first,omitempty"` // the first part; what was said before no longer holds
	Models []ModelMemory `json:"models"`
}

// MemoryReportModels is how many models one part has at most: it must fit into a message.
const MemoryReportModels = 64

// ModelMemory is what a worker has of one version of a model, in bytes.
type ModelMemory struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Private is what loading it has taken of the worker's own memory; -1: not known.
	Private int64 `json:"private"`
	// Beside says that requests ran meanwhile, whose memory is in Private as well.
	Beside bool `json:"beside,omitempty"`
	// Shared is what is present of the prepared weights that it has mapped.
	Shared int64 `json:"shared,omitempty"`
	// Plain is why it was not loaded as it is prepared; empty: it was, or nothing is prepared.
	Plain string `json:"plain,omitempty"`
	// Lost is why the weights are not shared though it was; empty: they are, or there are none.
	Lost string `json:"lost,omitempty"`
}

// ModelOrder is what a client wants to have done to a model.
type ModelOrder struct {
	Name   string `json:"name"`
	Unload bool   `json:"unload,omitempty"` // else load it
}
