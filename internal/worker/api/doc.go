// Package api is the worker's face to clients: the routes, their handlers, and the one
// table from an error to an HTTP status.
//
// It serves the health endpoints, the Open Inference Protocol below /v2, TensorFlow
// Serving's and KServe's V1 below /v1, the short POST /predict, which is also Amazon
// SageMaker's /invocations, and pages for people at / and /docs. A request's body goes
// through worker/codec to a model of inference/repository, run under a permit of
// worker/admission. An error is answered with {"error":"…"}, whatever it was; on the paths
// of POST /predict with {"detail":…}, as FastAPI does.
//
// A route is an entry of endpoints and one of operations, from which /openapi.json and
// /docs are made; a test compares them.
//
// Called by the worker, which serves Server's result on its listeners. It never opens a
// socket, never logs a request, and never decides how many requests run at once.
//
// Watch is the request clock of what runs: docs/internals/request-clock.md.
//
// Handle may be called from any goroutine. What a request needs while it is served comes
// from a pool: a request whose tensors stay below keepBytes costs no allocation here.
// What is compressed costs some: a request its decompressed body, an answer two small ones.
package api
