package api

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/upstream"
)

// answering is where each request is answered at once with the same bytes.
func answering(t testing.TB, text string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						_, _ = io.WriteString(c, text)
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// TestShares: each route that waits for others has a share of its layer's places, or as many as it says,
// and never more than the layer has.
func TestShares(t *testing.T) {
	proxy := func(n int) *Proxy {
		return &Proxy{Service: upstream.NewHTTP(upstream.Options{}), Connections: n}
	}
	o := Options{Layers: LayerOptions{Async: 30, Sync: 4, Waiting: 7}, Routes: []Route{
		{Path: "/a", Layer: Async, Proxy: proxy(0)},
		{Path: "/b", Layer: Async, Proxy: proxy(5)},
		{Path: "/c", Layer: Async, Lab: &Lab{}},
		{Path: "/d", Layer: Sync, Proxy: proxy(9)},
	}}
	a := newAPI(t, o)
	for path, want := range map[string]int{"/a": 10, "/b": 5, "/d": 4} {
		if got := a.routes[path].slots.Size(); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if a.routes["/c"].slots != nil || len(a.lines) != int(Layers)+3 {
		t.Errorf("%d lines", len(a.lines))
	}
}

// TestProxyAllocates little: a request to a service and its answer, of which nothing is kept.
func TestProxyAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	address := answering(t, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok")
	service := upstream.NewHTTP(upstream.Options{Address: address, Host: address, Keep: time.Minute, MaxAnswer: 1 << 20})
	defer service.Close()
	a := newAPI(t, Options{RequestTimeout: time.Minute, Routes: []Route{{Path: "/p", Layer: Async, Proxy: &Proxy{Service: service, Path: "/p", Methods: []string{"GET"}}}}})
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	var request fasthttp.Request
	if err := request.Read(bufio.NewReader(strings.NewReader("GET /p?a=b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nUser-Agent: y\r\n\r\n"))); err != nil {
		t.Fatal(err)
	}
	var ctx fasthttp.RequestCtx
	ctx.Init2(server, nil, true)
	request.CopyTo(&ctx.Request)
	once := func() {
		ctx.Response.Reset()
		a.Handle(&ctx)
		if ctx.Response.StatusCode() != 200 || string(ctx.Response.Body()) != "ok" || string(ctx.Response.Header.Peek("X-A")) != "b" {
			t.Fatalf("%s", ctx.Response.String())
		}
	}
	once()
	// Those are, most of them, strings of the header that the service gets, and two looks at sockets.
	if n := testing.AllocsPerRun(200, once); n > 25 {
		t.Errorf("%v allocations", n)
	}
}
