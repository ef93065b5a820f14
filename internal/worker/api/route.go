package api

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"
)

// endpoint is what a path stands for.
type endpoint uint8

const (
	nowhere endpoint = iota
	root
	live
	ready
	server
	model
	modelReady
	infer
	predict
	stats
	invocations
	v1Models
	v1Model
	v1Metadata
	v1Predict
	v1Refused
	openAPI
	docs
	modelConfig
	index
	control
	systemMemory
	cudaMemory
	trace
	logging
	submitTask
	oneTask
	taskResult
	listTasks
	custom // of the operator's routes
)

const (
	readOnly = "GET, HEAD"
	postOnly = "POST"
	both     = "GET, HEAD, POST"
	taskOnly = "GET, HEAD, DELETE"
)

// endpoints has the handler of each endpoint, the methods that it allows, and who may use it. The
// classes go together as the groups of Triton's --http-restricted-api do: repository, shared memory,
// trace and logging are control.
var endpoints = [...]struct {
	allow  string
	class  class
	handle func(*API, *fasthttp.RequestCtx, target) error
}{
	root:        {readOnly, docsClass, (*API).showPage},
	live:        {readOnly, open, (*API).live},
	ready:       {readOnly, open, (*API).ready},
	server:      {readOnly, inferClass, (*API).server},
	model:       {readOnly, inferClass, (*API).model},
	modelReady:  {readOnly, inferClass, (*API).modelReady},
	infer:       {postOnly, inferClass, (*API).infer},
	predict:     {postOnly, inferClass, (*API).predict},
	stats:       {readOnly, inferClass, (*API).stats},
	invocations: {postOnly, inferClass, (*API).invocations},
	v1Models:    {readOnly, inferClass, (*API).v1Models},
	v1Model:     {readOnly, inferClass, (*API).v1Model},
	v1Metadata:  {readOnly, inferClass, (*API).v1Metadata},
	v1Predict:   {postOnly, inferClass, (*API).v1Predict},
	v1Refused:   {postOnly, inferClass, (*API).v1Refused},
	openAPI:     {readOnly, docsClass, (*API).showOpenAPI},
	docs:        {readOnly, docsClass, (*API).showDocs},

	modelConfig:  {readOnly, inferClass, (*API).modelConfig},
	index:        {postOnly, controlClass, (*API).index},
	control:      {postOnly, controlClass, (*API).control},
	systemMemory: {both, controlClass, unsupported("system shared memory", noMemory)},
	cudaMemory:   {both, controlClass, unsupported("CUDA shared memory", noMemory)},
	trace:        {both, controlClass, unsupported("tracing", "preforkd keeps no traces: its metrics and its log tell of requests that take long")},
	logging:      {both, controlClass, unsupported("logging over HTTP", "one worker would change and the others not: set log.level and preforkd reload")},

	submitTask: {postOnly, tasksClass, (*API).submit},
	oneTask:    {taskOnly, tasksClass, (*API).oneTask},
	taskResult: {readOnly, tasksClass, (*API).taskResult},
	listTasks:  {readOnly, controlClass, (*API).listTasks},

	custom: {both, inferClass, (*API).custom}, // the class is the route's own
}

// target is an endpoint and the parts of the path that it takes.
type target struct {
	endpoint       endpoint
	model, version []byte // empty: the default
	label, verb    []byte // of paths below /v1, the id of a task, and load or unload; empty: none
	start          int64  // when the request began, by now
	route          *route // of custom
}

// class is who may ask for t.
func (t *target) class() class {
	if t.route != nil {
		return t.route.class
	}
	return endpoints[t.endpoint].class
}

// allows tells whether t takes the method of a request, and which ones it takes; most endpoints take
// those of general.
func (t *target) allows(ctx *fasthttp.RequestCtx, general string) (allow string, ok bool) {
	if t.route != nil && t.route.Proxy != nil {
		methods := t.route.Proxy.Methods
		return strings.Join(methods, ", "), slices.Contains(methods, string(ctx.Method()))
	}
	return general, allows(ctx, general)
}

// route finds the handler and calls it. The query is ignored.
func (a *API) route(ctx *fasthttp.RequestCtx, start int64) error {
	// The path as it was sent: in fasthttp's own form "/a/../livez" and
	// "/a%2F..%2Flivez" have become "/livez", which another server before this
	// one, with rules about paths, may have read differently.
	t := a.locate(ctx.URI().PathOriginal())
	if t.endpoint == nowhere {
		return errNoRoute
	}
	e := &endpoints[t.endpoint]
	if t.route != nil && t.route.cors != nil {
		if a.crossOrigin(ctx, t.route); a.preflight(ctx, t.route) {
			return nil
		}
	}
	if err := a.guard.check(&ctx.Request.Header, t.class()); err != nil {
		a.challenge(ctx, t.class(), err)
		dismiss(ctx)
		return err
	}
	if allow, ok := t.allows(ctx, e.allow); !ok {
		ctx.Response.Header.Set("Allow", allow)
		return errMethod
	}
	t.start = start
	return e.handle(a, ctx, t)
}

// allows tells whether the method of a request is among those.
func allows(ctx *fasthttp.RequestCtx, methods string) bool {
	switch {
	case ctx.IsPost():
		return methods == postOnly || methods == both
	case ctx.IsGet(), ctx.IsHead():
		return methods != postOnly
	case ctx.IsDelete():
		return methods == taskOnly
	}
	return false
}

// locate finds the endpoint of a path. It does not allocate unless the path has escapes.
func locate(path []byte) target {
	if string(path) == "/v2/" {
		return target{endpoint: server}
	}
	var parts [maxParts][]byte
	n, ok := split(path, &parts)
	if !ok {
		return target{}
	}
	switch n {
	case 0:
		return target{endpoint: root}
	case 1:
		return target{endpoint: single(parts[0])}
	case 2:
		if string(parts[0]) == "predict" {
			return target{endpoint: predict, model: parts[1]}
		}
	}
	switch string(parts[0]) {
	case "tasks", "result", "models":
		return locateTask(parts[:n])
	case "v1":
		return locateV1(parts[:n])
	case "v2":
	default:
		return target{}
	}
	if n == 3 && string(parts[1]) == "health" {
		return target{endpoint: health(parts[2])}
	}
	if n == 2 || string(parts[1]) != "models" {
		return locateExtension(parts[1:n])
	}
	return locateModel(parts[2:n])
}

func single(part []byte) endpoint {
	switch string(part) {
	case "livez", "healthz":
		return live
	case "readyz", "ping":
		return ready
	case "v2":
		return server
	case "predict":
		return predict
	case "invocations":
		return invocations
	case "openapi.json":
		return openAPI
	case "docs":
		return docs
	case "tasks":
		return listTasks
	}
	return nowhere
}

// locateTask finds the endpoint of tasks/ID[/result], result/ID and models/NAME/tasks.
func locateTask(parts [][]byte) target {
	switch first := string(parts[0]); {
	case first == "models" && len(parts) == 3 && string(parts[2]) == "tasks":
		return target{endpoint: submitTask, model: parts[1]}
	case first == "result" && len(parts) == 2:
		return target{endpoint: taskResult, label: parts[1]}
	case first == "tasks" && len(parts) == 2:
		return target{endpoint: oneTask, label: parts[1]}
	case first == "tasks" && len(parts) == 3 && string(parts[2]) == "result":
		return target{endpoint: taskResult, label: parts[1]}
	}
	return target{}
}

func health(part []byte) endpoint {
	switch string(part) {
	case "live":
		return live
	case "ready":
		return ready
	}
	return nowhere
}

// locateModel finds the endpoint of what follows /v2/models:
// NAME[/versions/VERSION][/ready|/infer|/config|/stats], NAME/trace/setting, and stats alone,
// which is of all.
func locateModel(parts [][]byte) target {
	if len(parts) == 1 && string(parts[0]) == "stats" {
		return target{endpoint: stats}
	}
	t := target{endpoint: model, model: parts[0]}
	parts = parts[1:]
	if len(parts) >= 2 && string(parts[0]) == "versions" {
		t.version = parts[1]
		parts = parts[2:]
	}
	switch {
	case len(parts) == 0:
		return t
	case isTrace(parts) && t.version == nil:
		t.endpoint = trace
		return t
	case len(parts) > 1:
		return target{}
	}
	switch string(parts[0]) {
	case "config":
		t.endpoint = modelConfig
	case "ready":
		t.endpoint = modelReady
	case "infer":
		t.endpoint = infer
	case "stats":
		t.endpoint = stats
	default:
		return target{}
	}
	return t
}

// maxParts is the most a path has: v2, models, NAME, versions, VERSION, infer.
const maxParts = 6

// split takes path apart and resolves the escapes in each part. A path with more parts,
// with an empty one, or with one that is "." or ".." or contains a slash, is refused.
func split(path []byte, parts *[maxParts][]byte) (n int, ok bool) {
	if len(path) == 0 || path[0] != '/' {
		return 0, false
	}
	for path = path[1:]; len(path) > 0; n++ {
		if n == maxParts {
			return 0, false
		}
		part, rest, more := bytes.Cut(path, []byte("/"))
		if more && len(rest) == 0 { // a slash at the end
			return 0, false
		}
		if parts[n], ok = unescape(part); !ok {
			return 0, false
		}
		path = rest
	}
	return n, true
}

func unescape(part []byte) ([]byte, bool) {
	if bytes.IndexByte(part, '%') >= 0 {
		text, err := url.PathUnescape(string(part))
		if err != nil || bytes.IndexByte([]byte(text), '/') >= 0 {
			return nil, false
		}
		part = []byte(text)
	}
	switch string(part) {
	case "", ".", "..":
		return nil, false
	}
	return part, true
}
