package api

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/admission"
)

// TestClosing: a worker of a service that is about to stop serves whatever is asked, says that
// it is not ready, and each answer closes its connection.
func TestClosing(t *testing.T) {
	var closing atomic.Bool
	a := newAPI(t, Options{Closing: closing.Load})
	address := serve(t, a, limits)
	kept := dial(t, address)
	kept.send(t, post("/predict", features))
	if status, body, h := kept.answer(t); status != 200 || h.Get("Connection") != "" {
		t.Errorf("before: %d %v: %s", status, h, body)
	}
	closing.Store(true)
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
	for _, c := range []struct {
		request string
		status  int
	}{
		{post("/predict", features), 200},
		{get("/livez"), 200},
		{get("/healthz"), 200},
		{get("/v2/health/live"), 200},
		{get("/readyz"), 503},
		{get("/v2/health/ready"), 503},
		{get("/v2/models/digits/ready"), 200},
		{get("/nowhere"), 404},
		{get("/predict"), 405},
		{post("/predict", "{"), 422},
		{post("/v2/models/panicking/infer", `{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}`), 500},
		{"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n", 413},
		{"hello\r\n\r\n", 400},
	} {
		conn := kept // a connection that was open is served once more
		if conn == nil {
			conn = dial(t, address)
		}
		kept = nil
		conn.send(t, c.request)
		status, body, h := conn.answer(t)
		if status != c.status || h.Get("Connection") != "close" {
			t.Errorf("%.40q: %d, Connection %q: %s", c.request, status, h.Get("Connection"), body)
		}
		if rest, err := io.ReadAll(conn.r); err != nil || len(rest) > 0 {
			t.Errorf("%.40q: the connection goes on: %q, %v", c.request, rest, err)
		}
	}
}

// TestClosingWhileARequestIsServed: what was begun before closes its connection, too.
func TestClosingWhileARequestIsServed(t *testing.T) {
	var closing atomic.Bool
	entered, leave := make(chan struct{}), make(chan struct{})
	a := newAPI(t, Options{
		Permits: admission.New(admission.Options{Limit: 1}), Closing: closing.Load,
		Entering: func(*repository.Model, []byte) { close(entered); <-leave }, Left: func() {},
	})
	c := dial(t, serve(t, a, limits))
	c.send(t, post("/predict", features))
	<-entered
	closing.Store(true)
	close(leave)
	if status, body, h := c.answer(t); status != 200 || h.Get("Connection") != "close" {
		t.Errorf("%d %v: %s", status, h, body)
	}
}

// TestClosingHEAD: a probe that sends HEAD learns the same.
func TestClosingHEAD(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{Closing: func() bool { return true }}), limits))
	c.send(t, "HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodHead})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	resp.Body.Close()
}
