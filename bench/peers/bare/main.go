// Bare is the floor of the benchmarks: one fasthttp process that answers POST /predict
// like preforkd, with the same JSON and the same engine call, and nothing else: no
// supervisor, no routes, no limits, no clocks.
//
// Its JSON is preforkd's own codec (internal/worker/codec), so that the comparison
// shows what serving costs and not what encoding/json costs. It has one session of the
// model for each of GOMAXPROCS threads, taken from a channel.
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
	flag.Parse()
	if err := run(*listen, *library, *path); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

// server answers requests. All its fields are safe for concurrent use.
type server struct {
	sessions chan inference.Model
	info     *inference.TensorInfo
	row      inference.Row
	calls    sync.Pool // of *call
}

// call is the memory of one request.
type call struct {
	request codec.PredictRequest
	out     []inference.Tensor
}

func run(listen, library, path string) error {
	engine, err := onnx.Open(library)
	if err != nil {
		return err
	}
	s := &server{sessions: make(chan inference.Model, runtime.GOMAXPROCS(0))}
	for range cap(s.sessions) {
		m, err := engine.Load(path)
		if err != nil {
			return err
		}
		s.info = &m.Inputs()[0]
		s.sessions <- m
	}
	if s.row, err = s.info.Row(); err != nil {
		return err
	}
	s.calls.New = func() any { return &call{out: make([]inference.Tensor, 2)} }

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
	if string(ctx.Path()) != "/predict" || !ctx.IsPost() {
		ctx.Error("not found", fasthttp.StatusNotFound)
		return
	}
	c := s.calls.Get().(*call)
	defer s.calls.Put(c)
	if err := c.request.Decode(ctx.PostBody(), s.info, s.row); err != nil {
		ctx.Error(err.Error(), fasthttp.StatusBadRequest)
		return
	}
	m := <-s.sessions
	err := m.Run(c.request.Inputs[:], c.out)
	s.sessions <- m
	if err != nil {
		ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	body, err := c.request.AppendResponse(ctx.Response.SwapBody(nil)[:0], codec.Prediction{
		Model: "digits", Version: "1", Label: &c.out[0], Probabilities: &c.out[1],
	})
	if err != nil {
		ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
		return
	}
	ctx.SetContentType("application/json")
	ctx.Response.SwapBody(body)
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
