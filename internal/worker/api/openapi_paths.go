package api

import (
	"github.com/valyala/fasthttp"

	"preforkd/internal/inference/repository"
)

// Groups of operations.
const (
	tagShort  = "Predict"
	tagV2     = "Open Inference Protocol"
	tagV1     = "TensorFlow Serving and KServe V1"
	tagRoutes = "Routes"
	tagTasks  = "Background tasks"
	tagHealth = "Health"
	tagAbout  = "About this server"
)

// operation is what the documents say about an endpoint.
type operation struct {
	tag, summary string
	paths        []string // templates: {model} is replaced, {version} and {label} stay
	status       int      // of every answer; 0: 200, or an error
	detail       bool     // errors have FastAPI's form
	html         bool

	// The schemas of bodies for a model, the names that these have, and a body that the
	// model takes; nil: none.
	request, answer         func(*repository.Model) object
	requestName, answerName string
	example                 func(*repository.Model) object
	only                    func(*repository.Model) bool // models that have it; nil: all
}

// takes tells whether m answers o.
func (o *operation) takes(m *repository.Model) bool { return o.only == nil || o.only(m) }

func predicts(m *repository.Model) bool { return m.Predict.Err == nil }

// changes takes the place of operations[control] where models.control allows it.
var changes = operation{
	tag: tagV2, summary: "Load the model from the model directory into every worker, or unload it",
	paths: []string{"/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload"},
}

// operations are by endpoint, as endpoints are.
var operations = [...]operation{
	root: {tag: tagAbout, summary: "A page for people", paths: []string{"/"}, html: true},
	live: {tag: tagHealth, summary: "Whether the worker that answers lives", paths: []string{"/livez", "/healthz", "/v2/health/live"}},
	ready: {
		tag: tagHealth, summary: "Whether the worker that answers may take traffic; /ping is what Amazon SageMaker asks",
		paths: []string{"/readyz", "/v2/health/ready", "/ping"},
	},
	server: {tag: tagV2, summary: "Name and version of the server", paths: []string{"/v2"}},
	model: {
		tag: tagV2, summary: "Versions, inputs and outputs of the model",
		paths: []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"},
	},
	modelReady: {
		tag: tagV2, summary: "Whether the model answers",
		paths: []string{"/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"},
	},
	modelConfig: {
		tag: tagV2, summary: "The model's configuration, as the reference server has it",
		paths: []string{"/v2/models/{model}/config", "/v2/models/{model}/versions/{version}/config"},
	},
	stats: {
		tag: tagV2, summary: "What was counted of requests to the models, of all workers together",
		paths: []string{"/v2/models/stats", "/v2/models/{model}/stats", "/v2/models/{model}/versions/{version}/stats"},
	},
	index: {
		tag: tagV2, summary: "Versions of all models, and whether they answer", paths: []string{"/v2/repository/index"},
		answer: indexSchema, answerName: "index",
	},
	control: {
		tag: tagV2, summary: "Refused: models change with the model directory, or by preforkd models", status: fasthttp.StatusForbidden,
		paths: []string{"/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload"},
	},
	systemMemory: {tag: tagV2, summary: "Not implemented", status: fasthttp.StatusNotImplemented, paths: []string{"/v2/systemsharedmemory/status"}},
	cudaMemory:   {tag: tagV2, summary: "Not implemented", status: fasthttp.StatusNotImplemented, paths: []string{"/v2/cudasharedmemory/status"}},
	trace: {
		tag: tagV2, summary: "Not implemented", status: fasthttp.StatusNotImplemented,
		paths: []string{"/v2/trace/setting", "/v2/models/{model}/trace/setting"},
	},
	logging: {tag: tagV2, summary: "Not implemented", status: fasthttp.StatusNotImplemented, paths: []string{"/v2/logging"}},
	infer: {
		tag: tagV2, summary: "Run the model",
		paths:   []string{"/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"},
		request: inferSchema, requestName: "infer", example: inferExample, answer: inferredSchema, answerName: "inferred",
	},
	predict: {
		tag: tagShort, summary: "Run the model on one row of numbers, or on several", paths: []string{"/predict", "/predict/{model}"}, detail: true,
		request: predictSchema, requestName: "predict", example: predictExample, answer: predictionSchema, answerName: "prediction", only: predicts,
	},
	invocations: {
		tag: tagShort, summary: "As /predict, for Amazon SageMaker", paths: []string{"/invocations"}, detail: true,
		request: predictSchema, requestName: "predict", example: predictExample, answer: predictionSchema, answerName: "prediction", only: predicts,
	},
	v1Models: {tag: tagV1, summary: "Names of the models", paths: []string{"/v1/models"}},
	v1Model: {
		tag: tagV1, summary: "Whether the model answers, and its versions",
		paths: []string{"/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}"},
	},
	v1Metadata: {
		tag: tagV1, summary: "Inputs and outputs of the model, as a signature",
		paths: []string{"/v1/models/{model}/metadata", "/v1/models/{model}/versions/{version}/metadata", "/v1/models/{model}/labels/{label}/metadata"},
	},
	v1Predict: {
		tag: tagV1, summary: "Run the model on rows or on whole tensors",
		paths:   []string{"/v1/models/{model}:predict", "/v1/models/{model}/versions/{version}:predict", "/v1/models/{model}/labels/{label}:predict"},
		request: servingSchema, requestName: "instances", example: servingExample, answer: servedSchema, answerName: "predictions",
	},
	v1Refused: {
		tag: tagV1, summary: "Not implemented", status: fasthttp.StatusNotImplemented,
		paths: []string{"/v1/models/{model}:classify", "/v1/models/{model}:regress", "/v1/models/{model}:explain"},
	},
	submitTask: {tag: tagTasks, summary: "Run the model later: the body is that of /predict or of /v2/models/{model}/infer", paths: []string{"/models/{model}/tasks"}},
	oneTask:    {tag: tagTasks, summary: "How a task is", paths: []string{"/tasks/{task}"}},
	taskResult: {tag: tagTasks, summary: "What the direct call would have answered", paths: []string{"/result/{task}", "/tasks/{task}/result"}},
	listTasks:  {tag: tagTasks, summary: "The latest tasks", paths: []string{"/tasks"}},
	openAPI:    {tag: tagAbout, summary: "This service as an OpenAPI document", paths: []string{"/openapi.json"}},
	custom:     {tag: tagRoutes, summary: "A route of this service"}, // its paths are the operator's
	docs:       {tag: tagAbout, summary: "The OpenAPI document as a page, with forms", paths: []string{"/docs"}, html: true},
}
