// Bare is the floor of the benchmarks: one fasthttp process that answers POST /predict and
// POST /v2/models/digits/infer like preforkd, with the same JSON, the same binary tensors
// and the same engine call, and nothing else: no supervisor, no routes, no limits, no
// clocks.
//
// With -model and -name it serves another model of one input, by its inference endpoint.
//
// It reads and writes with preforkd's own codec (internal/worker/codec), so that the
// comparison shows what serving costs and not what encoding/json costs. It has one session of the
// model for each of GOMAXPROCS threads, unless -sessions says how many, taken from a channel.
//
//	bare -listen 127.0.0.1:9000 -library /path/libonnxruntime.so -model models/digits/1/model.onnx
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/onnx"
	"preforkd/internal/worker/codec"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address")
	library := flag.String("library", "libonnxruntime.so.1", "ONNX Runtime's shared library")
	path := flag.String("model", "models/digits/1/model.onnx", "the model")
	name := flag.String("name", "digits", "what it is called")
	sessions := flag.Int("sessions", runtime.GOMAXPROCS(0), "how many sessions, so copies of the weights, there are")
	flag.Parse()
	if err := run(*listen, *library, *path, *name, *sessions); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

// server answers requests. All its fields are safe for concurrent use.
type server struct {
	model    string
	endpoint string
	sessions chan inference.Model
	inputs   []inference.TensorInfo
	outputs  []inference.TensorInfo
	row      inference.Row
	calls    sync.Pool // of *call
}

// call is the memory of one request.
type call struct {
	predict codec.PredictRequest
	infer   codec.InferRequest
	out     []inference.Tensor
	number  []byte // the text of a header
}

func run(listen, library, path, name string, sessions int) error {
	engine, err := onnx.Open(library)
	if err != nil {
		return err
	}
	s := &server{model: name, endpoint: "/v2/models/" + name + "/infer", sessions: make(chan inference.Model, max(sessions, 1))}
	for range cap(s.sessions) {
		m, err := engine.Load(path)
		if err != nil {
			return err
		}
		s.inputs, s.outputs = m.Inputs(), m.Outputs()
		s.sessions <- m
	}
	if s.row, err = s.inputs[0].Row(); err != nil {
		return err
	}
	s.calls.New = func() any { return &call{out: make([]inference.Tensor, len(s.outputs))} }

	http := &fasthttp.Server{Handler: s.handle, Name: "bare"}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan error, 1)
	go func() { ended <- http.ListenAndServe(listen) }() // ends with the process
	fmt.Println("bare: fasthttp", version("github.com/valyala/fasthttp"), runtime.Version(), "on", listen)
	select {
	case err := <-ended:
		return err
	case <-signals:
		return nil
	}
}

func (s *server) handle(ctx *fasthttp.RequestCtx) {
	c := s.calls.Get().(*call)
	defer s.calls.Put(c)
	switch path := string(ctx.Path()); {
	case !ctx.IsPost():
		ctx.Error("not found", fasthttp.StatusNotFound)
	case path == "/predict" && len(c.out) == 2: // a label and probabilities
		s.predict(ctx, c)
	case path == s.endpoint:
		s.infer(ctx, c)
	default:
		ctx.Error("not found", fasthttp.StatusNotFound)
	}
}

func (s *server) predict(ctx *fasthttp.RequestCtx, c *call) {
	if err := c.predict.Decode(ctx.PostBody(), &s.inputs[0], s.row); err != nil {
		ctx.Error(err.Error(), fasthttp.StatusBadRequest)
		return
	}
	if err := s.run(c.predict.Inputs[:], c.out); err != nil {
		ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	body, err := c.predict.AppendResponse(ctx.Response.SwapBody(nil)[:0], codec.Prediction{
		Model: s.model, Version: "1", Label: &c.out[0], Probabilities: &c.out[1],
	})
	if err != nil {
		ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	ctx.SetContentType("application/json")
	ctx.Response.SwapBody(body)
}

// headerLength says how much of a body is JSON, before binary tensors.
const headerLength = "Inference-Header-Content-Length"

func (s *server) infer(ctx *fasthttp.RequestCtx, c *call) {
	body := ctx.PostBody()
	header := len(body)
	if text := ctx.Request.Header.Peek(headerLength); len(text) > 0 {
		var err error
		if header, err = fasthttp.ParseUint(text); err != nil {
			ctx.Error(err.Error(), fasthttp.StatusBadRequest)
			return
		}
	}
	if err := c.infer.DecodeBinary(body, header, s.inputs, s.outputs); err != nil {
		ctx.Error(err.Error(), fasthttp.StatusBadRequest)
		return
	}
	if err := s.run(c.infer.Inputs, c.out); err != nil {
		ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	answer, header, err := c.infer.AppendResponse(ctx.Response.SwapBody(nil)[:0], s.model, "1", c.out)
	if err != nil {
		ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	ctx.SetContentType("application/json")
	if header > 0 {
		ctx.SetContentType("application/octet-stream")
		c.number = strconv.AppendInt(c.number[:0], int64(header), 10)
		ctx.Response.Header.SetBytesV(headerLength, c.number)
	}
	ctx.Response.SwapBody(answer)
}

// run waits for a session and runs the model in it.
func (s *server) run(in, out []inference.Tensor) error {
	m := <-s.sessions
	err := m.Run(in, out)
	s.sessions <- m
	return err
}

// version returns the version of a module in this binary.
func version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return "unknown"
}
