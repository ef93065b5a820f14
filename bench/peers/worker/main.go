// Worker is a worker without a supervisor, with and without the two parts that exist
// for reloads: the wrapper around connections, by which they can be handed over, and
// the counting on the scoreboard. Everything else is the same: the product's routes,
// codec, permits, limits and engine call.
//
//	worker -listen 127.0.0.1:9000 -library /path/libonnxruntime.so -models models [-plain]
//
// The handler that counts is that of package worker (measure.go), which is private.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/onnx"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/handoff"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/api"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address")
	library := flag.String("library", "libonnxruntime.so.1", "ONNX Runtime's shared library")
	models := flag.String("models", "models", "where digits/1/model.onnx is")
	plain := flag.Bool("plain", false, "without the wrapper and the scoreboard")
	flag.Parse()
	if err := run(*listen, *library, *models, *plain); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

// The defaults of the settings of the same names.
const (
	maxConnections = 10000
	keepalive      = 75 * time.Second
	requestTimeout = 30 * time.Second
)

func run(listen, library, models string, plain bool) error {
	engine, err := onnx.Open(library)
	if err != nil {
		return err
	}
	row := (*scoreboard.Row)(nil)
	if !plain {
		board, _, err := scoreboard.Create(8)
		if err != nil {
			return err
		}
		if row, err = board.Claim(scoreboard.Holder{Generation: 1}); err != nil {
			return err
		}
		engine = &watched{engine, row}
	}
	path := filepath.Join(models, "digits", "1", "model.onnx")
	loaded, err := repository.Load(engine, []ipc.ModelFile{{Name: "digits", Version: "1", Source: path, Path: path}})
	if err != nil {
		return err
	}
	a := api.New(api.Options{Models: loaded, Permits: admission.New(1), Default: "digits", RequestTimeout: requestTimeout})
	server := a.Server(api.ServerOptions{
		MaxBody: 16 << 20, HeaderTimeout: 10 * time.Second, RequestTimeout: requestTimeout, KeepaliveTimeout: keepalive,
		MaxConnections: maxConnections,
	})
	ln, err := net.Listen("tcp4", listen)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	if !plain {
		server.Handler = counted(row, server.Handler)
		pool := accept.NewPool(accept.Options{Connections: maxConnections, Generation: 1, Keepalive: keepalive})
		server.ConnState = func(c net.Conn, s fasthttp.ConnState) { pool.State(c, accept.State(s)) }
		in, out, err := handoff.Pair()
		if err != nil {
			return err
		}
		queue, err := handoff.Open(in, out)
		if err != nil {
			return err
		}
		ln = pool.Listener(ln, 0)
		go func() { ended <- server.Serve(pool.Adopter(queue, func() bool { return true })) }() // ends with the process
	}
	go func() { ended <- server.Serve(ln) }() // ends with the process
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err := <-ended:
		return err
	case <-signals:
		return nil
	}
}

// counted is (*worker).counted.
func counted(row *scoreboard.Row, next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		row.InFlight.Add(1)
		row.Requests.Add(1)
		next(ctx)
		row.Respond(ctx.Response.StatusCode())
		row.Latency.Observe(time.Since(start))
		row.InFlight.Add(-1)
	}
}

// watched is package worker's.
type watched struct {
	inference.Engine
	row *scoreboard.Row
}

// Load loads a model whose runs are counted.
func (e *watched) Load(path string) (inference.Model, error) {
	m, err := e.Engine.Load(path)
	if err != nil {
		return nil, err
	}
	return &watchedModel{m, e.row}, nil
}

type watchedModel struct {
	inference.Model
	row *scoreboard.Row
}

// Run runs the model and counts.
func (m *watchedModel) Run(in, out []inference.Tensor) error {
	start := time.Now()
	m.row.BusySince.Mark()
	err := m.Model.Run(in, out)
	m.row.BusySince.Clear()
	m.row.EngineCalls.Add(1)
	m.row.EngineNs.Add(uint64(time.Since(start)))
	return err
}
