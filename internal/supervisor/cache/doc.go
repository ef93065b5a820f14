// Package cache finds the model files that a generation will serve and copies them,
// by the digest of their content, to where nobody changes them.
//
// Workers load only from the cache. Overwriting a model in place, deleting it or
// copying the next version half-way therefore changes nothing that runs and nothing
// that a crashed worker's replacement loads.
//
// Called by the supervisor before it starts a generation. It decides which versions of
// a model are loaded (the highest, unless its settings choose others) and nothing else,
// and it does not look into the files: the engine does, in a worker.
//
// Layout of the model directory: <name>/<version>/model.onnx and files beside it
// (external data), <name>/config.yaml or config.pbtxt, warmup.json. Layout of the cache: models/<digest>/ with the
// same files. An entry appears by a rename and never changes afterwards, so several
// supervisors may share a cache. What a supervisor may still load it has a lease on; Sweep
// removes the rest. Beside them, prepared/<key>/ is what the engine has made of a copy:
// docs/internals/prepared.md. All functions may be called from any goroutine.
package cache
