package api

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"preforkd/internal/worker/admission"
)

// chunked is features in two chunks.
var chunked = "a\r\n" + features[:10] + "\r\n" + hex(len(features)-10) + ";x=y\r\n" + features[10:] + "\r\n0\r\n\r\n"

func hex(n int) string {
	const digits = "0123456789abcdef"
	if n < 16 {
		return digits[n : n+1]
	}
	return hex(n/16) + digits[n%16:n%16+1]
}

func TestChunkedAndPipelined(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	c.send(t, "POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked+
		post("/predict/nobody", features)+"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"+post("/predict", features))
	for _, want := range []int{200, 404, 200, 200} {
		if status, body, _ := c.answer(t); status != want {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}
}

// TestMalformedHTTP sends what is not HTTP, or could be read in two ways. Each gets one
// answer and the end of the connection, and the next connection is served.
func TestMalformedHTTP(t *testing.T) {
	address := serve(t, newAPI(t, Options{}), limits)
	const head = "POST /predict HTTP/1.1\r\nHost: x\r\n"
	hidden := "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, x := range map[string]struct {
		text   string
		status int
	}{
		"no length":                 {head + "\r\n" + features, 411},
		"no request line":           {"hello\r\n\r\n", 400},
		"no version":                {"GET /\r\n\r\n", 400},
		"HTTP/2":                    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		"no host":                   {"GET /livez HTTP/1.1\r\n\r\n", 400},
		"two hosts":                 {"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
		"bad method":                {"G(T /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"control character in path": {"GET /li\x01vez HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"space before colon":        {head + "Content-Length : 4\r\n\r\nabcd", 400},
		"control character":         {head + "X: a\x00b\r\nContent-Length: 0\r\n\r\n", 400},
		"large header":              {"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", headerBytes) + "\r\n\r\n", 431},
		"large path":                {"GET /" + strings.Repeat("x", headerBytes) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		"negative length":           {head + "Content-Length: -1\r\n\r\n", 400},
		"signed length":             {head + "Content-Length: +4\r\n\r\nabcd", 400},
		"list of lengths":           {head + "Content-Length: 4, 4\r\n\r\nabcd", 400},
		"two lengths":               {head + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400},
		"overflowing length":        {head + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"unknown coding":            {head + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked, 400},
		"chunked twice":             {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 400},
		"chunked in HTTP/1.0":       {"POST /predict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 400},
		"bad chunk size":            {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		"bad chunk end":             {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n", 400},
		"overflowing chunk":         {head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 400},
		"bare newline in a chunk":   {head + "Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n", 400},
		// RFC 9112, section 6.3: chunks win, and the connection ends after the
		// answer, so that what a proxy may take for a body is never a request.
		"length and chunks": {head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + hidden, 200},
		"chunks and length": {head + "Transfer-Encoding: chunked\r\nContent-Length: " + itoa(len(chunked+hidden)) + "\r\n\r\n" + chunked + hidden, 200},
		"body and end":      {"POST /predict HTTP/1.0\r\nContent-Length: " + itoa(len(features)) + "\r\n\r\n" + features + hidden, 200},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, address)
			c.send(t, x.text)
			status, body, h := c.answer(t)
			if status != x.status || h.Get("Connection") != "close" {
				t.Errorf("%d %s, %v; want %d", status, body, h, x.status)
			}
			if status != 200 {
				errorText(t, body)
			}
			rest, err := io.ReadAll(c.r)
			if len(rest) > 0 || err != nil && !isReset(err) { // a reset: bytes of ours were unread
				t.Errorf("after the answer: %q, %v", rest, err)
			}
			alive(t, address)
		})
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset by peer") }

// alive checks that the server answers.
func alive(t *testing.T, address string) {
	t.Helper()
	c := dial(t, address)
	c.send(t, post("/predict", features))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("a good request afterwards: %d %s", status, body)
	}
}

func TestEndsEarly(t *testing.T) {
	address := serve(t, newAPI(t, Options{}), limits)
	for _, text := range []string{
		"POST /predict HTTP/1.1\r\nHost: x\r\nConte",
		post("/predict", features)[:100],
		"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked[:40],
	} {
		c := dial(t, address)
		c.send(t, text)
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if status, body, _ := c.answer(t); status != 400 {
			t.Errorf("%q: %d %s", text, status, body)
		}
		alive(t, address)
	}
}

func TestTimeouts(t *testing.T) {
	o := limits
	o.HeaderTimeout, o.RequestTimeout = 20*time.Millisecond, 40*time.Millisecond
	address := serve(t, newAPI(t, Options{}), o)
	for _, text := range []string{"POST /predict HTTP/1.1\r\nHo", post("/predict", features)[:100]} {
		c := dial(t, address)
		c.send(t, text)
		status, body, _ := c.answer(t)
		if want := "request: not received in time: 20ms for the header, 40ms for the body"; status != 408 || errorText(t, body) != want {
			t.Errorf("%q: %d %s", text, status, body)
		}
	}
	alive(t, address)
}

// TestBodiesThatAreTooLarge: the answer arrives, however the client sends.
func TestBodiesThatAreTooLarge(t *testing.T) {
	address := serve(t, newAPI(t, Options{}), limits)
	const size = 100 << 20
	const want = "body: larger than http.max_body, which is 65536 bytes"
	t.Run("net/http", func(t *testing.T) {
		for _, length := range []int64{size, -1} { // -1: in chunks
			body := io.LimitReader(zeros{}, size)
			req, err := http.NewRequest(http.MethodPost, "http://"+address+"/predict", body)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = length
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			form := "detail"
			if length < 0 { // fasthttp has forgotten the path when it has read chunks in vain
				form = "error"
			}
			if resp.Body.Close(); err != nil || resp.StatusCode != 413 || string(text) != `{"`+form+`":"`+want+`"}` {
				t.Errorf("length %d: %d %s, %v", length, resp.StatusCode, text, err)
			}
		}
	})
	t.Run("written before read", func(t *testing.T) {
		c := dial(t, address)
		c.send(t, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(size)+"\r\n\r\n")
		if _, err := io.CopyN(c, zeros{}, size); err != nil {
			t.Fatal(err)
		}
		if status, body, _ := c.answer(t); status != 413 || body != `{"detail":"`+want+`"}` {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("only announced", func(t *testing.T) {
		c := dial(t, address)
		c.send(t, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(size)+"\r\n\r\n")
		if status, body, _ := c.answer(t); status != 413 || body != `{"detail":"`+want+`"}` {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("expected", func(t *testing.T) {
		c := dial(t, address)
		c.send(t, "POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "+itoa(size)+"\r\n\r\n")
		status, body, h := c.answer(t)
		if status != 413 || body != `{"detail":"`+want+`"}` || h.Get("Connection") != "close" {
			t.Errorf("%d %s %v", status, body, h)
		}
		if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil {
			t.Errorf("after the answer: %q, %v", rest, err)
		}
	})
	alive(t, address)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLargestBody(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	padding := strings.Repeat(" ", limits.MaxBody-len(features))
	c.send(t, post("/predict", features+padding))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	c.send(t, post("/predict", features+padding+" "))
	if status, body, _ := c.answer(t); status != 413 {
		t.Errorf("%d %s", status, body)
	}
}

func TestExpectContinue(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	head := "POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n"
	for _, x := range []struct{ framing, body string }{
		{"Content-Length: " + itoa(len(features)), features},
		{"Transfer-Encoding: chunked", chunked},
	} {
		c.send(t, head+x.framing+"\r\n\r\n")
		if line, err := c.r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if line, err := c.r.ReadString('\n'); line != "\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		c.send(t, x.body)
		if status, body, _ := c.answer(t); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	large := strings.Repeat(" ", limits.MaxBody)
	c.send(t, head+"Transfer-Encoding: chunked\r\n\r\n"+hex(len(large)+1)+"\r\n"+large+" \r\n0\r\n\r\n")
	if status, _, _ := c.answer(t); status != 100 {
		t.Fatalf("status %d", status)
	}
	if status, body, _ := c.answer(t); status != 413 {
		t.Errorf("%d %s", status, body)
	}
}

func TestPanicIsOurs(t *testing.T) {
	var log bytes.Buffer
	permits := admission.New(admission.Options{Limit: 1})
	a := newAPI(t, Options{Permits: permits, Log: slog.New(slog.NewTextHandler(&log, nil)), WorkerHeader: "w"})
	address := serve(t, a, limits)
	c := dial(t, address)
	c.send(t, post("/predict/panicking", `{"features":[1]}`))
	status, body, h := c.answer(t)
	if status != 500 || errorText(t, body) != errBug.Error() || h.Get("Connection") != "close" {
		t.Errorf("%d %s %v", status, body, h)
	}
	alive(t, address)
	if permits.InUse() != 0 {
		t.Error("the permit is lost")
	}
	if text := log.String(); !strings.Contains(text, "handler panicked") || !strings.Contains(text, "index out of range") || !strings.Contains(text, "fake_test.go") {
		t.Errorf("log: %s", text)
	}
}

func TestHealth(t *testing.T) {
	var leaving atomic.Bool
	c := dial(t, serve(t, newAPI(t, Options{Ready: func() bool { return !leaving.Load() }}), limits))
	get := func(method, path string) (int, string) {
		t.Helper()
		c.send(t, method+" "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if method == "HEAD" && resp.ContentLength <= 0 {
			t.Errorf("HEAD %s: length %d", path, resp.ContentLength)
		}
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"/livez", "/healthz", "/v2/health/live", "/readyz", "/v2/health/ready", "/ping"} {
		want := `{"live":true}`
		if strings.Contains(path, "ready") || path == "/ping" {
			want = `{"ready":true}`
		}
		if status, body := get("GET", path); status != 200 || body != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if status, body := get("HEAD", path); status != 200 || body != "" {
			t.Errorf("HEAD %s: %d %s", path, status, body)
		}
	}
	leaving.Store(true)
	for path, want := range map[string]int{"/livez": 200, "/v2/health/live": 200, "/readyz": 503, "/v2/health/ready": 503, "/ping": 503} {
		if status, body := get("GET", path); status != want || status == 503 && errorText(t, body) != "not ready" {
			t.Errorf("leaving: %s: %d %s", path, status, body)
		}
		if status, _ := get("HEAD", path); status != want {
			t.Errorf("leaving: HEAD %s: %d", path, status)
		}
	}
}
