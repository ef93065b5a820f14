package worker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"preforkd/internal/config"
	"preforkd/internal/inference"
	"preforkd/internal/inference/onnx"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/control"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/testkit/digits"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/api"
)

// library is the engine's.
func library(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ONNXRUNTIME")
	if path == "" {
		path = filepath.Join("..", "..", ".cache", "onnxruntime", "1.24.3", "libonnxruntime.so.1")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return path
}

// complete returns a worker with the real engine, the model digits and a row of its own;
// all that a request meets, but no supervisor.
func complete(t testing.TB) *worker {
	t.Helper()
	w := &worker{log: slog.New(slog.DiscardHandler)}
	board, fd, err := scoreboard.Create(1)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	t.Cleanup(func() { board.Close() })
	w.board = board
	if w.row, err = board.Claim(scoreboard.Holder{}); err != nil {
		t.Fatal(err)
	}
	if w.engine, err = onnx.Open(library(t)); err != nil {
		t.Fatal(err)
	}
	w.cfg.Timeouts.Request, w.cfg.HTTP = time.Minute, config.HTTP{
		MaxBody: 1 << 20, HeaderTimeout: time.Minute, KeepaliveTimeout: time.Minute, MaxConnections: 10, WorkerHeader: true,
	}
	w.watched = &watched{Engine: w.engine, w: w}
	w.models, err = repository.Load(w.watched, []ipc.ModelFile{{
		Name: "digits", Version: "1", Path: filepath.Join(digits.Load(t).Root, "models", "digits", "1", "model.onnx"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.change.beside.Wait()
		w.models.Close()
		if err := w.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	w.control = deaf(t)
	w.handle("1.2.3")
	t.Cleanup(alongside(w.api.Watch))
	return w
}

// deaf is a control channel whose other end has died.
func deaf(t testing.TB) *control.Conn {
	t.Helper()
	theirs, own, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(theirs)
	c, err := control.New(own, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// bodies are of the requests that cost no allocation, by path.
func bodies(t testing.TB) map[string]string {
	var row []string
	for _, v := range digits.Load(t).Pixels[0] {
		row = append(row, fmt.Sprint(v))
	}
	list := "[" + strings.Join(row, ",") + "]"
	return map[string]string{
		"/predict":                `{"features":` + list + `}`,
		"/v2/models/digits/infer": `{"id":"7","inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":` + list + `}]}`,
	}
}

// received is a request as the server hands it over.
func received(path, body string) *fasthttp.RequestCtx {
	ctx := new(fasthttp.RequestCtx)
	ctx.Request.Header.SetMethod("POST")
	ctx.Request.Header.Set("Content-Length", fmt.Sprint(len(body)))
	ctx.Request.SetRequestURI(path)
	ctx.Request.SetBodyString(body)
	ctx.URI() // is parsed before a handler runs
	return ctx
}

// binaryBody is that of an inference whose tensors are binary both ways, which begins with
// header bytes of JSON.
func binaryBody(t testing.TB) (body string, header int) {
	head := `{"parameters":{"binary_data_output":true},"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","parameters":{"binary_data_size":256}}]}`
	b := []byte(head)
	for _, v := range digits.Load(t).Pixels[0] {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)))
	}
	return string(b), len(head)
}

func binaryRequest(t testing.TB) *fasthttp.RequestCtx {
	body, header := binaryBody(t)
	ctx := received("/v2/models/digits/infer", body)
	ctx.Request.Header.Set("Inference-Header-Content-Length", fmt.Sprint(header))
	return ctx
}

// TestRequestsAllocateNothing, with everything between the server and the engine, and
// the engine.
func TestRequestsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector sync.Pool forgets at random")
	}
	w := complete(t)
	for unready := range uint64(2) {
		w.board.Unready().Store(unready)
		for path, body := range bodies(t) {
			ctx := received(path, body)
			if n := testing.AllocsPerRun(500, func() {
				ctx.Response.Header.Reset() // the server keeps the body's buffer
				w.api.Handle(ctx)
			}); n != 0 || ctx.Response.StatusCode() != 200 || ctx.Response.ConnectionClose() != (unready == 1) {
				t.Errorf("%s: %v allocations, unready %d, %s", path, n, unready, ctx.Response.Body())
			}
		}
	}
	binary := binaryRequest(t)
	if n := testing.AllocsPerRun(500, func() {
		binary.Response.Header.Reset()
		w.api.Handle(binary)
	}); n != 0 || binary.Response.StatusCode() != 200 {
		t.Errorf("binary: %v allocations, %s", n, binary.Response.Body())
	}
	if n := w.row.Requests.Load(); n != 5*501 || w.row.EngineCalls.Load() != n || w.row.InFlight.Load() != 0 {
		t.Errorf("%d requests counted, %d runs, %d in flight", n, w.row.EngineCalls.Load(), w.row.InFlight.Load())
	}
}

// BenchmarkRequest is what one request costs: the engine alone, with everything between
// it and the server, and with the server and a socket, whose client is in here, too.
func BenchmarkRequest(b *testing.B) {
	w := complete(b)
	b.Run("engine", func(b *testing.B) {
		m, err := w.models.Find("digits", "")
		if err != nil {
			b.Fatal(err)
		}
		in, out := make([]inference.Tensor, 1), make([]inference.Tensor, len(m.Outputs()))
		if err := in[0].Reset(inference.FP32, []int64{1, digits.Features}); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := m.Run(in, out); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("handler, binary", func(b *testing.B) {
		ctx := binaryRequest(b)
		b.ReportAllocs()
		for b.Loop() {
			ctx.Response.Header.Reset()
			w.api.Handle(ctx)
		}
		if ctx.Response.StatusCode() != 200 {
			b.Fatal(string(ctx.Response.Body()))
		}
	})
	address := w.open(b)
	b.Run("socket, binary", func(b *testing.B) {
		body, header := binaryBody(b)
		ask(b, address, "/v2/models/digits/infer", body, fmt.Sprintf("Inference-Header-Content-Length: %d\r\n", header))
	})
	for path, body := range bodies(b) {
		b.Run("handler"+path, func(b *testing.B) {
			ctx := received(path, body)
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Header.Reset()
				w.api.Handle(ctx)
			}
			if ctx.Response.StatusCode() != 200 {
				b.Fatal(string(ctx.Response.Body()))
			}
		})
		b.Run("socket"+path, func(b *testing.B) { ask(b, address, path, body) })
	}
}

// open serves w's API on a socket until the benchmark ends.
func (w *worker) open(b *testing.B) (address string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := w.api.Server(api.ServerOptions{
		MaxBody: 1 << 20, HeaderTimeout: time.Minute, RequestTimeout: time.Minute, MaxConnections: 10,
	})
	pool := accept.NewPool(accept.Options{Connections: 10})
	server.ConnState = func(c net.Conn, s fasthttp.ConnState) { pool.State(c, accept.State(s)) }
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(pool.Listener(ln, 0)) }()
	b.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			b.Error(err)
		}
		<-ended
	})
	return ln.Addr().String()
}

// ask sends one request after the other and allocates nothing either.
func ask(b *testing.B, address, path, body string, headers ...string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(headers, ""), body)
	if _, err := c.Write(request); err != nil {
		b.Fatal(err)
	}
	first := new(bytes.Buffer)
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, first)), nil)
	if err != nil || resp.StatusCode != 200 {
		b.Fatal(resp, err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
	answer := make([]byte, first.Len()+64) // headers differ by some digits, in Server-Timing
	end := []byte("\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		for n, header := 0, -1; header < 0 || n < header+len(end)+int(resp.ContentLength); {
			more, err := c.Read(answer[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += more
			header = bytes.Index(answer[:n], end)
		}
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 OK\r\n")) {
		b.Fatalf("%s", answer)
	}
}
