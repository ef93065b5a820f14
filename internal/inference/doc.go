// Package inference is the contract between protocol code and engines: Engine,
// Model, Tensor and the data types of the Open Inference Protocol.
//
// Codecs and handlers see only this package; inference/onnx implements it. It
// imports nothing of ours and holds no state.
//
// A Model is not safe for concurrent use: whoever calls Run holds the permit that
// worker/admission gave. Everything else here is plain data.
package inference
