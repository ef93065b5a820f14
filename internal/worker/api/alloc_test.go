package api

import (
	"maps"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// request returns a context with a request in it, as fasthttp hands it over.
func request(path, body string) *fasthttp.RequestCtx {
	ctx := new(fasthttp.RequestCtx)
	ctx.Request.Header.SetMethod("POST")
	ctx.Request.Header.Set("Content-Length", itoa(len(body)))
	ctx.Request.SetRequestURI(path)
	ctx.Request.SetBodyString(body)
	ctx.URI() // is parsed before a handler runs
	return ctx
}

var floats = "[0.5" + strings.Repeat(",0.0078125", 63) + "]"

// common are the requests that cost no allocation.
var common = map[string]*fasthttp.RequestCtx{
	"predict":         request("/predict", features),
	"predict, floats": request("/predict", `{"features":`+floats+`}`),
	"predict, name":   request("/predict/digits?x=y", features),
	"infer":           request("/v2/models/digits/infer", `{"id":"7","inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":`+floats+`}]}`),
	"invocations":     request("/invocations", features),
	"rows":            request("/v1/models/digits:predict", `{"instances":[`+floats+`]}`),
	"rows, names":     request("/v1/models/digits/versions/1:predict", `{"instances":[{"pixels":`+floats+`}]}`),
	"columns":         request("/v1/models/digits:predict", `{"inputs":[`+floats+`]}`),
	"infer, version":  request("/v2/models/digits/versions/1/infer", inferPixels("[1,64]", row)),
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector sync.Pool forgets at random")
	}
	all := binaryRequests()
	maps.Copy(all, common)
	for _, ctx := range all {
		ctx.Request.Header.Set("Authorization", "Bearer infer-new")
	}
	for _, closing := range []bool{false, true} {
		a := newAPI(t, Options{WorkerHeader: "main/0/7", Closing: func() bool { return closing }, Tokens: tokens})
		for name, ctx := range all {
			if n := testing.AllocsPerRun(500, func() {
				ctx.Response.Header.Reset() // the server keeps the body's buffer
				a.Handle(ctx)
			}); n != 0 || ctx.Response.StatusCode() != 200 || ctx.Response.ConnectionClose() != closing {
				t.Errorf("%s: %v allocations, closing %v: %s", name, n, ctx.Response.ConnectionClose(), ctx.Response.Body())
			}
		}
	}
}

// TestLargeRequestsAreForgotten: neither the body, nor the tensors, nor the answer of a
// large request stay in memory with what is reused.
func TestLargeRequestsAreForgotten(t *testing.T) {
	a := newAPI(t, Options{})
	rows := strings.Repeat(floats+",", 6000)
	ctx := request("/v2/models/digits/infer", inferPixels("[6000,64]", "["+rows[:len(rows)-1]+"]"))
	a.Handle(ctx)
	if ctx.Response.StatusCode() != 200 {
		t.Fatalf("%.200s", ctx.Response.Body())
	}
	if n := len(ctx.Request.Body()); n != 0 {
		t.Errorf("%d bytes of the body stay", n)
	}
	x := a.exchanges.Get().(*exchange)
	if len(x.infer.Inputs) == 1 && len(x.infer.Inputs[0].Raw()) != 0 {
		t.Errorf("%d bytes of the tensor stay", len(x.infer.Inputs[0].Raw()))
	}
	large := make([]byte, keepBytes+1)
	sendJSON(ctx, large)
	ctx.Response.Reset()
	if n := cap(ctx.Response.SwapBody(nil)); n > keepBytes {
		t.Errorf("%d bytes of the answer stay", n)
	}
}

func BenchmarkHandle(b *testing.B) {
	a := newAPI(b, Options{})
	all := binaryRequests()
	maps.Copy(all, common)
	for name, ctx := range all {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Header.Reset()
				a.Handle(ctx)
			}
			if ctx.Response.StatusCode() != 200 {
				b.Fatal(string(ctx.Response.Body()))
			}
		})
	}
}
