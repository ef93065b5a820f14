// Package codec turns request bodies into tensors, and tensors into response bodies:
// the JSON of the Open Inference Protocol (specification/protocol/inference_rest.md),
// its binary tensors (Triton server: docs/protocol/extension_binary_data.md), the JSON of
// TensorFlow Serving and KServe's V1 protocol, and the short form of POST /predict, with
// the errors that FastAPI has.
//
// It reads JSON as RFC 8259 defines it, in one pass over the body, and refuses a few
// things more, so that a text has one meaning:
//   - a known key given twice, a string that is not UTF-8 or has half of a surrogate
//     pair, more than 64 levels of nesting;
//   - where an integer is wanted, anything but its digits: neither 1.0 nor 1e2.
//
// A number that does not fit its type is refused, a float too small to matter is zero
// (strconv.ParseFloat). Keys it does not know are checked and ignored, as are the
// parameters it does not know. TensorFlow Serving's form alone has NaN and Infinity, which
// are no JSON. Every error about a body is an *Error that names the field; an *OutputError
// is about what the model returned.
//
// Called by worker/api. It never reads from a connection and never runs a model.
//
// InferRequest, PredictRequest and ServingRequest belong to one goroutine at a time and
// are reused: a request that is not larger than an earlier one costs no allocation. Exceptions are
// numbers of more than 32 characters that only strconv reads. Binary inputs of 64 KiB and
// more refer to the body where they are aligned, until the next Decode or Trim.
package codec
