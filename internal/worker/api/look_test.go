package api

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/accept"
)

func TestComputes(t *testing.T) {
	a := newAPI(t, Options{})
	for text, want := range map[string]bool{
		"POST /predict HTTP/1.1\r\n":                         true,
		"POST /predict/digits?x=y HTTP/1.1\r\n":              true,
		"POST /v2/models/digits/infer HTTP/1.1\r\n":          true,
		"POST http://h/v1/models/d:predict HTTP/1.1\r\n":     true,
		"POST /invocations HTTP/1.1\r\n":                     true,
		"POST /predict":                                      true, // it may become one
		"PO":                                                 true,
		"POST /v2/repository/index HTTP/1.1\r\n":             false,
		"POST /v2/models/d/trace/setting HTTP/1.1\r\n":       false,
		"GET /v2/models/digits/infer HTTP/1.1\r\n":           false,
		"GET /healthz HTTP/1.1\r\n":                          false,
		"\r\nPOST /predict HTTP/1.1\r\n":                     false,
		"POST  /predict HTTP/1.1\r\n":                        false,
		"POST /v1/models/digits:explain HTTP/1.1\r\nHost: x": false,
	} {
		if got := a.Computes([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	text := []byte("POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\n\r\n")
	if n := testing.AllocsPerRun(100, func() { a.Computes(text) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestComputesOfRoutes: requests to routes of the layer compute need a permit, by any method, and others do not.
func TestComputesOfRoutes(t *testing.T) {
	a := newAPI(t, Options{RequestTimeout: time.Minute, Routes: []Route{
		{Path: "/burn", Layer: Compute, Lab: &Lab{}}, {Path: "/sleep", Layer: Sync, Lab: &Lab{}},
	}})
	a.Server(ServerOptions{MaxBody: 1000})
	for text, want := range map[string]bool{
		"GET /burn HTTP/1.1\r\n":      true,
		"HEAD /burn?x HTTP/1.1\r\n":   true,
		"POST /burn HTTP/1.1\r\n":     true,
		"GET /bu":                     true, // it may become one
		"GET /sleep HTTP/1.1\r\n":     false,
		"POST /sleep HTTP/1.1\r\n":    false,
		"GET /predict HTTP/1.1\r\n":   false,
		"POST /predict HTTP/1.1\r\n":  true,
		"DELETE /burn HTTP/1.1\r\n":   false,
		"GET /burn/more HTTP/1.1\r\n": false,
	} {
		if got := a.Computes([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	for text, want := range map[string]accept.Head{
		"GET /burn HTTP/1.1\r\nX-Request-Timeout: 2s\r\n\r\n":           {Computes: true, Size: 45, Limit: 2 * time.Second},
		"POST /burn HTTP/1.1\r\nContent-Length: 5\r\n\r\n":              {Computes: true, Size: 47, Limit: time.Minute},
		"POST /burn HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n":     {Computes: true, Limit: time.Minute},
		"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n":                        {},
		"GET /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\n\r\n":       {},
		"GET /burn HTTP/1.1\r\nContent-Length: 5000\r\nHost: x\r\n\r\n": {Computes: true, Limit: time.Minute},
	} {
		if got, ok := a.Look([]byte(text)); got != want || !ok {
			t.Errorf("%q: %+v %v", text, got, ok)
		}
	}
}

func TestLook(t *testing.T) {
	a := newAPI(t, Options{RequestTimeout: time.Minute})
	a.Server(ServerOptions{MaxBody: 1000})
	const start = "POST /predict HTTP/1.1\r\nHost: x\r\n"
	can := func(size int, limit time.Duration) accept.Head {
		return accept.Head{Computes: true, Size: size, Limit: limit}
	}
	for _, c := range []struct {
		fields string
		want   accept.Head
	}{
		{"Content-Length: 10\r\n", can(65, time.Minute)},
		{"content-length:10\r\n", can(64, time.Minute)},
		{"Content-Length: 10\r\nX-Request-Timeout: 2s\r\n", can(88, 2*time.Second)},
		{"X-Envoy-Expected-Rq-Timeout-Ms: 250\r\nContent-Length: 10\r\n", can(102, 250*time.Millisecond)},
		{"X-Request-Timeout: 2h\r\nContent-Length: 10\r\n", can(88, time.Minute)},
		{"X-Request-Timeout: soon\r\nContent-Length: 10\r\n", can(0, time.Minute)},
		{"", can(0, time.Minute)},
		{"Content-Length: 1001\r\n", can(0, time.Minute)},
		{"Content-Length: -1\r\n", can(0, time.Minute)},
		{"Content-Length: 99999999999999999999\r\n", can(0, time.Minute)},
		{"Content-Length: 10\r\nContent-Length: 10\r\n", can(0, time.Minute)},
		{"Content-Length: 10\r\nTransfer-Encoding: chunked\r\n", can(0, time.Minute)},
		{"Content-Length: 10\r\nExpect: 100-continue\r\n", can(0, time.Minute)},
		{"Content-Length: 10\r\n folded\r\n", can(0, time.Minute)},
	} {
		whole := start + c.fields + "\r\n"
		got, complete := a.Look([]byte(whole + "0123456789"))
		if got.Cost = 0; got != c.want || !complete {
			t.Errorf("%q: %+v, %v; want %+v", c.fields, got, complete, c.want)
		}
		for i := range whole {
			if got, complete := a.Look([]byte(whole[:i])); complete || got != (accept.Head{}) {
				t.Errorf("%q: %+v", whole[:i], got)
			}
		}
	}
	for _, text := range []string{"GET /healthz HTTP/1.1\r\n", "G", "POST /v2/models/nobody/infer HTTP/1.1\r\nContent-Length: 1\r\n\r\n", "POST /nowhere HTTP/1.1\r\n"} {
		if got, complete := a.Look([]byte(text)); !complete || got != (accept.Head{}) {
			t.Errorf("%q: %+v, %v", text, got, complete)
		}
	}
	asks := []byte(start + "Content-Length: 10\r\nUser-Agent: x\r\nX-Request-Id: 7\r\n\r\n0123456789")
	if n := testing.AllocsPerRun(100, func() { a.Look(asks) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// FuzzLook: what Look takes for a whole request the server reads as one of that size, for a path that
// runs a model.
func FuzzLook(f *testing.F) {
	a := newAPI(f, Options{})
	a.Server(ServerOptions{MaxBody: 1 << 20})
	for _, fields := range []string{"Content-Length: 3\r\n", "Content-Length: 3\n", "Content-Length:\t3 \r\nHost: y\r\n", "Transfer-Encoding: chunked\r\n", "X: \r\n y\r\nContent-Length: 3\r\n", "Content-Length : 3\r\n"} {
		f.Add([]byte("POST /predict HTTP/1.1\r\nHost: x\r\n" + fields + "\r\nabc"))
	}
	f.Add([]byte("POST http://x/v2/models/digits/infer?a#b HTTP/1.0\r\nContent-Length: 0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, complete := a.Look(data)
		a.Computes(data)
		if !complete || h.Size == 0 {
			return
		}
		if h.Size > len(data) {
			data = append(bytes.Clone(data), strings.Repeat("x", min(h.Size-len(data), 1<<20))...)
		}
		var r fasthttp.Request
		from := bufio.NewReaderSize(bytes.NewReader(data), 64<<10)
		if err := r.ReadLimitBody(from, 1<<20); err != nil {
			return // it is answered with an error, wherever it is read
		}
		if rest := from.Buffered(); len(data)-rest != h.Size {
			t.Errorf("%q: %d bytes, the server reads %d", data, h.Size, len(data)-rest)
		}
		if !runs(locate(pathOf(r.Header.RequestURI())).endpoint) || !r.Header.IsPost() {
			t.Errorf("%q does not run a model", data)
		}
	})
}
