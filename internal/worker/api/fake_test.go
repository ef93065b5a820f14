package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
)

// adder is an engine and its models in one. A row's label is its sum, its
// "probabilities" are its first number and the sum of the others.
type adder struct {
	in, out []inference.TensorInfo
	run     func(in, out []inference.Tensor) error

	runUntil func(s *stop, in, out []inference.Tensor) error // instead of run
}

func (a *adder) Platform() string                     { return "test_adder" }
func (a *adder) Version() string                      { return "1" }
func (a *adder) Close() error                         { return nil }
func (a *adder) Inputs() []inference.TensorInfo       { return a.in }
func (a *adder) Outputs() []inference.TensorInfo      { return a.out }
func (a *adder) Run(in, out []inference.Tensor) error { return a.run(in, out) }
func (a *adder) NewStop() (inference.Stop, error)     { return newStop(), nil }

func (a *adder) RunUntil(s inference.Stop, in, out []inference.Tensor) error {
	if a.runUntil != nil {
		return a.runUntil(s.(*stop), in, out)
	}
	return a.run(in, out)
}
func (a *adder) Load(path string) (inference.Model, error) { return models[path], nil }

func (a *adder) Prepare(string, string) error                 { return errors.ErrUnsupported }
func (a *adder) LoadPrepared(string) (inference.Model, error) { return nil, errors.ErrUnsupported }

func tensor(name string, dt inference.DataType, shape ...int64) inference.TensorInfo {
	return inference.TensorInfo{Name: name, DataType: dt, Shape: shape}
}

// models by path; a repository has them under the same names.
var models = map[string]*adder{
	"digits": {
		in: []inference.TensorInfo{tensor("pixels", inference.FP32, -1, 64)},
		out: []inference.TensorInfo{
			tensor("label", inference.Int64, -1), tensor("probabilities", inference.FP32, -1, 2),
		},
		run: runAdder,
	},
	"two": {
		in: []inference.TensorInfo{
			tensor("a", inference.Int64, -1, 2), tensor("b", inference.FP32, 1),
		},
		out: []inference.TensorInfo{tensor("sum", inference.FP32, 1)},
		run: func(in, out []inference.Tensor) error {
			sum := in[1].Float32s()[0]
			for _, v := range in[0].Int64s() {
				sum += float32(v)
			}
			out[0].Name = "sum"
			err := out[0].Reset(inference.FP32, []int64{1})
			out[0].Float32s()[0] = sum
			return err
		},
	},
	"nan": {
		in:  []inference.TensorInfo{tensor("x", inference.FP32, -1, 1)},
		out: []inference.TensorInfo{tensor("ratio", inference.FP32, -1, 1)},
		run: func(in, out []inference.Tensor) error {
			out[0].Name = "ratio"
			err := out[0].Reset(inference.FP32, in[0].Shape)
			x := in[0].Float32s()[0]
			out[0].Float32s()[0] = (x - x) / (x - x)
			return err
		},
	},
	"failing": {
		in: []inference.TensorInfo{tensor("x", inference.FP32, -1, 1)}, out: []inference.TensorInfo{tensor("y", inference.FP32, -1, 1)},
		run: func(in, _ []inference.Tensor) error {
			if in[0].Float32s()[0] < 0 {
				return errors.Join(inference.ErrInput, errors.New("x is negative"))
			}
			return errors.New("the engine is out of memory")
		},
	},
	"panicking": {
		in: []inference.TensorInfo{tensor("x", inference.FP32, -1, 1)}, out: []inference.TensorInfo{tensor("y", inference.FP32, -1, 1)},
		run: func(_, _ []inference.Tensor) error { panic("index out of range") },
	},
	`<b>"&amp;</b>`: {
		in: []inference.TensorInfo{tensor("<i>", inference.Int64, -1, -1)}, out: []inference.TensorInfo{tensor("y", inference.FP32, -1, 1)},
		run: func(_, _ []inference.Tensor) error { return nil },
	},
}

var (
	one = []int64{1}
	two = []int64{1, 2}
)

func runAdder(in, out []inference.Tensor) error {
	rows := int(in[0].Shape[0])
	labels, probabilities := one, two
	if rows != 1 {
		labels, probabilities = []int64{int64(rows)}, []int64{int64(rows), 2}
	}
	out[0].Name, out[1].Name = "label", "probabilities"
	if err := errors.Join(out[0].Reset(inference.Int64, labels), out[1].Reset(inference.FP32, probabilities)); err != nil {
		return err
	}
	x, l, p := in[0].Float32s(), out[0].Int64s(), out[1].Float32s()
	for k := range rows {
		row, rest := x[k*64:(k+1)*64], float32(0)
		for _, v := range row[1:] {
			rest += v
		}
		l[k], p[2*k], p[2*k+1] = int64(row[0]+rest), row[0], rest
	}
	return nil
}

// newAPI returns an API with the models.
func newAPI(t testing.TB, o Options) *API {
	t.Helper()
	var files []ipc.ModelFile
	for name := range models {
		files = append(files, ipc.ModelFile{Name: name, Version: "1", Path: name, Source: "models/" + name})
	}
	files = append(files, ipc.ModelFile{Name: "digits", Version: "2", Path: "digits", Options: ipc.ModelSettings{
		Description: "a </textarea> sum",
		Predict:     ipc.PredictSettings{Sample: slices.Repeat([]float32{0.5}, 64)},
	}})
	r, err := repository.Load(models["digits"], files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	o.Models = r
	if o.Permits == nil {
		o.Permits = admission.New(admission.Options{Limit: 1})
	}
	if o.Default == "" {
		o.Default = "digits"
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = time.Minute
	}
	o.Version = "1.2.3"
	return New(o)
}

// limits are those of the tests: no test waits for a time to run out, except those that
// set their own.
var limits = ServerOptions{
	MaxBody: 64 << 10, HeaderTimeout: time.Minute, RequestTimeout: time.Minute, MaxConnections: 100,
}

// serve serves a on a socket until the test ends, behind connections as a worker has
// them, and returns its address.
func serve(t testing.TB, a *API, o ServerOptions) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := a.Server(o)
	conns := accept.NewPool(accept.Options{
		Connections: o.MaxConnections, Clocks: accept.Clocks{Header: o.HeaderTimeout, Write: o.RequestTimeout},
	})
	s.ConnState = func(c net.Conn, state fasthttp.ConnState) { conns.State(c, accept.State(state)) }
	ctx, cancel := context.WithCancel(context.Background())
	var clocks sync.WaitGroup
	clocks.Go(func() { conns.Run(ctx) })
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(conns.Listener(ln, 0)) }()
	t.Cleanup(func() {
		err := s.Shutdown()
		_ = ln.Close() // Shutdown knows no listener before Serve has begun
		if err = errors.Join(err, <-ended); err != nil {
			t.Error(err)
		}
		cancel()
		clocks.Wait()
	})
	return ln.Addr().String()
}

// client is one connection that sends bytes as they are.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	return dialOn(t, "tcp", address)
}

func dialOn(t testing.TB, network, address string) *client {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &client{c, bufio.NewReader(c)}
}

func (c *client) send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// answer reads one response.
func (c *client) answer(t testing.TB) (status int, body string, h http.Header) {
	t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatalf("read an answer: %v", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read an answer of status %d: %v", resp.StatusCode, err)
	}
	if resp.Close {
		resp.Header.Set("Connection", "close")
	}
	return resp.StatusCode, string(b), resp.Header
}

// post is the text of a request.
func post(path, body string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
}

func itoa(n int) string { return string(fasthttp.AppendUint(nil, n)) }

// row is a row of 64 numbers whose sum is 3.
var row = "[3" + strings.Repeat(",0", 63) + "]"

// features is a good body of POST /predict.
var features = `{"features":` + row + `}`
