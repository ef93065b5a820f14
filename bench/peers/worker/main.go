// Worker is a worker without a supervisor, with and without the two parts that exist
// for reloads: the wrapper around connections, by which they can be handed over, and
// the counting on the scoreboard. Everything else is the same: the product's routes,
// codec, permits, limits and engine call. The wrapper also keeps the clocks of its
// connections; without it fasthttp keeps the same ones.
//
//	worker -listen 127.0.0.1:9000 -library /path/libonnxruntime.so -models models [-plain]
//
// What counts is that of package worker (measure.go), which is private.
package main

import (
	"context"
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
	headerTimeout  = 10 * time.Second
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
	options := api.Options{Models: loaded, Permits: admission.New(admission.Options{Limit: 1}), Default: "digits", RequestTimeout: requestTimeout}
	if !plain {
		options.Began, options.Answered = counting(row)
	}
	a := api.New(options)
	server := a.Server(api.ServerOptions{
		MaxBody: 16 << 20, HeaderTimeout: headerTimeout, RequestTimeout: requestTimeout, MaxConnections: maxConnections,
	})
	ln, err := net.Listen("tcp4", listen)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	if plain {
		server.ReadTimeout, server.WriteTimeout, server.IdleTimeout = headerTimeout, requestTimeout, keepalive
	} else {
		pool := accept.NewPool(accept.Options{
			Connections: maxConnections, Generation: 1,
			Clocks: accept.Clocks{Header: headerTimeout, Keepalive: keepalive, Write: requestTimeout},
		})
		go pool.Run(context.Background()) // ends with the process
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

// counting is what package worker does when a request begins and when it is answered.
func counting(row *scoreboard.Row) (began func(), answered func(status int, took time.Duration)) {
	return func() {
			row.InFlight.Add(1)
			row.Requests.Add(1)
		}, func(status int, took time.Duration) {
			row.Respond(status)
			row.Latency.Observe(took)
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

// Run is RunUntil without a stop.
func (m *watchedModel) Run(in, out []inference.Tensor) error { return m.RunUntil(nil, in, out) }

// RunUntil runs the model and counts.
func (m *watchedModel) RunUntil(stop inference.Stop, in, out []inference.Tensor) error {
	start := m.row.BusySince.Mark()
	err := m.Model.RunUntil(stop, in, out)
	m.row.BusySince.Clear()
	m.row.EngineCalls.Add(1)
	m.row.EngineNs.Add(uint64(start.Since()))
	return err
}
