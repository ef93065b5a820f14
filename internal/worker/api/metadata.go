package api

import (
	"strconv"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/worker/codec"
)

// live answers that this worker runs.
func (a *API) live(ctx *fasthttp.RequestCtx, _ target) error {
	sendJSON(ctx, append(ctx.Response.SwapBody(nil)[:0], `{"live":true}`...))
	return nil
}

// ready answers whether this worker may take traffic.
func (a *API) ready(ctx *fasthttp.RequestCtx, _ target) error {
	if !a.Ready() || a.Closing() {
		return errNotReady
	}
	sendJSON(ctx, append(ctx.Response.SwapBody(nil)[:0], `{"ready":true}`...))
	return nil
}

// server answers GET /v2.
func (a *API) server(ctx *fasthttp.RequestCtx, _ target) error {
	b := append(ctx.Response.SwapBody(nil)[:0], `{"name":"preforkd","version":`...)
	b = codec.AppendString(b, a.Version)
	b = append(b, `,"extensions":`...)
	sendJSON(ctx, append(append(b, extensions...), '}'))
	return nil
}

// modelReady answers GET /v2/models/…/ready: a model that is found is loaded, and ready
// unless it is quarantined.
func (a *API) modelReady(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.runnable(t)
	if err != nil {
		return err
	}
	b := append(ctx.Response.SwapBody(nil)[:0], `{"name":`...)
	b = codec.AppendString(b, m.Name)
	sendJSON(ctx, append(b, `,"ready":true}`...))
	return nil
}

// model answers GET /v2/models/….
func (a *API) model(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.find(t)
	if err != nil {
		return err
	}
	versions := []string{m.Version}
	if len(t.version) == 0 {
		versions = a.Models.Versions(m.Name)
	}
	b := append(ctx.Response.SwapBody(nil)[:0], `{"name":`...)
	b = codec.AppendString(b, m.Name)
	b = append(b, `,"versions":[`...)
	for i, v := range versions {
		if i > 0 {
			b = append(b, ',')
		}
		b = codec.AppendString(b, v)
	}
	b = append(b, `],"platform":`...)
	b = codec.AppendString(b, m.Platform)
	b = appendTensors(b, `,"inputs":[`, m.Inputs())
	b = appendTensors(b, `,"outputs":[`, m.Outputs())
	sendJSON(ctx, append(b, '}'))
	return nil
}

// appendTensors appends the descriptions of tensors, after key and an opening bracket. What
// is optional is left out: clients fill in all that is described. Any shape is described as
// one open size, for which the protocol has a form.
func appendTensors(b []byte, key string, list []inference.TensorInfo) []byte {
	b = append(b, key...)
	first := true
	for i := range list {
		if list[i].Optional {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, `{"name":`...)
		b = codec.AppendString(b, list[i].Name)
		b = append(b, `,"datatype":"`...)
		b = append(b, list[i].DataType.String()...)
		b = append(b, `","shape":[`...)
		if list[i].AnyShape {
			b = append(b, "-1"...)
		}
		for j, d := range list[i].Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		b = append(b, `]}`...)
	}
	return append(b, ']')
}
