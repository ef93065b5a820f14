package api

import (
	"github.com/valyala/fasthttp"
)

// extensions are those of GET /v2.
const extensions = `["binary_tensor_data","model_configuration","model_repository","parameters","statistics"]`

// locateExtension finds the endpoint of what follows /v2, models and health aside.
func locateExtension(parts [][]byte) target {
	rest := parts[1:]
	switch string(parts[0]) {
	case "repository":
		return locateRepository(rest)
	case "systemsharedmemory":
		return onlyIf(isMemory(rest), systemMemory)
	case "cudasharedmemory":
		return onlyIf(isMemory(rest), cudaMemory)
	case "trace":
		return onlyIf(isTrace(parts), trace)
	case "logging":
		return onlyIf(len(rest) == 0, logging)
	}
	return target{}
}

func onlyIf(is bool, e endpoint) target {
	if is {
		return target{endpoint: e}
	}
	return target{}
}

// locateRepository finds index and [REPOSITORY/]models/NAME/(load|unload).
func locateRepository(parts [][]byte) target {
	if len(parts) == 1 && string(parts[0]) == "index" {
		return target{endpoint: index}
	}
	if len(parts) == 4 {
		parts = parts[1:]
	}
	if len(parts) != 3 || string(parts[0]) != "models" {
		return target{}
	}
	switch string(parts[2]) {
	case "load", "unload":
		return target{endpoint: control, model: parts[1], verb: parts[2]}
	}
	return target{}
}

// isMemory tells whether parts are [region/NAME/](status|register|unregister).
func isMemory(parts [][]byte) bool {
	if len(parts) == 3 && string(parts[0]) == "region" {
		parts = parts[2:]
	}
	if len(parts) != 1 {
		return false
	}
	switch string(parts[0]) {
	case "status", "register", "unregister":
		return true
	}
	return false
}

func isTrace(parts [][]byte) bool {
	return len(parts) == 2 && string(parts[0]) == "trace" && string(parts[1]) == "setting"
}

const noMemory = "one worker would have the region and the others not: send tensors in the body"

// unsupported answers requests of an extension that there is not, and why.
func unsupported(what, why string) func(*API, *fasthttp.RequestCtx, target) error {
	err := describe(errSupport, "%s is not supported: %s", what, why)
	return func(_ *API, ctx *fasthttp.RequestCtx, _ target) error {
		unread(ctx)
		return err
	}
}

// unread is for requests that need no body: one that says nothing of its body has none,
// but what follows it on the connection is not taken for a request.
func unread(ctx *fasthttp.RequestCtx) {
	if ctx.IsPost() && len(ctx.Request.Body()) == 0 && !framed(ctx) {
		ctx.SetConnectionClose()
	}
}
