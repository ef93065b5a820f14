// Package pbtxt reads config.pbtxt, a model's settings in the reference server's model
// repository: a ModelConfig message in the text format of protocol buffers.
//
// Decode is given the bytes by package cache, through the supervisor, and fills
// ipc.ModelSettings. What is wrong is an error and what has no effect here is a warning,
// each with file, line and column; all of them, not only the first. It reads no files,
// and it does not know the model: the worker compares inputs and outputs with the graph.
//
// The syntax is that of https://protobuf.dev/reference/protobuf/textformat-spec, without
// extensions and Any. The fields are those of model_config.proto of
// https://github.com/triton-inference-server/common. Functions may be called from any
// goroutine.
package pbtxt
