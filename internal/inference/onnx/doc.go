// Package onnx runs models with ONNX Runtime, through the only import of its Go
// binding. It implements inference.Engine and inference.Model.
//
// The worker's programs open the engine; inference/repository loads models with it.
// It never looks for models, never downloads a library, never logs (what ONNX
// Runtime reports comes back as errors) and keeps nothing of a caller's tensors.
//
// A model copies values into memory of its own, which is pinned because ONNX Runtime
// holds pointers to it from call to call, and binds it once for each combination of
// input shapes. A shape met before costs no allocation: see binding.go. Strings, and
// outputs whose shape only the run itself can tell, are allocated by ONNX Runtime: see
// placeable.
//
// The Go binding makes the environment and the sessions. What it lacks is called through
// ONNX Runtime's own table of functions: call_unsafe.go.
//
// A run can be stopped between two operators, where ONNX Runtime looks: see stop.go.
//
// Files that are no models are errors. A file that was made to harm, or damaged in an
// unlucky place, can still end the process inside ONNX Runtime: an abort, or a run
// without end. What contains that is the worker's process and its clocks.
//
// Every session has one thread, the caller's. Engine's methods may be called from any
// goroutine; a Model belongs to one at a time, and different Models run side by side.
package onnx
