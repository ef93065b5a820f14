package api

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"io"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// pixelsBody is a request of the model digits whose pixels, 3 and zeros, are binary.
func pixelsBody(more string) (body string, header int) {
	head := `{` + more + `"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","parameters":{"binary_data_size":256}}]}`
	data := make([]byte, 256)
	binary.LittleEndian.PutUint32(data, math.Float32bits(3))
	return head + string(data), len(head)
}

// postWith is post with headers, each with its line's end.
func postWith(path, headers, body string) string {
	return strings.Replace(post(path, body), "Host: x\r\n", "Host: x\r\n"+headers, 1)
}

func packed(t testing.TB, coding, body string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if coding == "deflate" {
		w = zlib.NewWriter(&b)
	}
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func unpacked(t testing.TB, coding, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "deflate":
		r, err = zlib.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBinaryRequests(t *testing.T) {
	address := serve(t, newAPI(t, Options{}), limits)
	c := dial(t, address)
	const asJSON = `{"model_name":"digits","model_version":"2","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[3]},{"name":"probabilities","datatype":"FP32","shape":[1,2],"data":[3,0]}]}`
	const asBinary = `{"model_name":"digits","model_version":"2","outputs":[{"name":"label","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}},{"name":"probabilities","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}` +
		"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x40\x00\x00\x00\x00"
	plain, header := pixelsBody("")
	all, allHeader := pixelsBody(`"parameters":{"binary_data_output":true},`)
	const path = "/v2/models/digits/infer?test_1=1&test_2=2"
	length := func(n int) string { return "inference-header-content-length: " + itoa(n) + "\r\n" }
	for name, x := range map[string]struct {
		request string
		want    string
		length  string // of the answer's JSON
	}{
		"JSON answer":    {postWith(path, length(header), plain), asJSON, ""},
		"binary answer":  {postWith(path, length(allHeader), all), asBinary, itoa(len(asBinary) - 16)},
		"all is JSON":    {postWith(path, length(len(inferPixels("[1,64]", row))), inferPixels("[1,64]", row)), asJSON, ""},
		"the only input": {postWith(path, length(0), plain[header:]), asBinary, itoa(len(asBinary) - 16)},
		"gzip":           {postWith(path, length(allHeader)+"Content-Encoding: gzip\r\n", packed(t, "gzip", all)), asBinary, itoa(len(asBinary) - 16)},
		"deflate":        {postWith(path, length(header)+"Content-Encoding: Deflate\r\n", packed(t, "deflate", plain)), asJSON, ""},
		"gzip, JSON":     {postWith(path, "Content-Encoding: x-gzip\r\n", packed(t, "gzip", inferPixels("[1,64]", row))), asJSON, ""},
		"chunked": {
			"POST " + path + " HTTP/1.1\r\nHost: x\r\n" + length(allHeader) + "Transfer-Encoding: chunked\r\n\r\n" +
				hex(50) + "\r\n" + all[:50] + "\r\n" + hex(len(all)-50) + "\r\n" + all[50:] + "\r\n0\r\n\r\n",
			asBinary, itoa(len(asBinary) - 16),
		},
	} {
		c.send(t, x.request)
		status, body, h := c.answer(t)
		wantType := map[bool]string{true: "application/octet-stream", false: "application/json"}[x.length != ""]
		if status != 200 || body != x.want || h.Get("Inference-Header-Content-Length") != x.length || h.Get("Content-Type") != wantType {
			t.Errorf("%s: %d %v\n got %q\nwant %q", name, status, h, body, x.want)
		}
	}
	for headers, want := range map[string]string{
		length(len(plain) + 1):                                      "inference header size should be in range (0, " + itoa(len(plain)) + "), got: " + itoa(len(plain)+1),
		"Inference-Header-Content-Length: -1\r\n":                   "inference header size should be in range (0, " + itoa(len(plain)) + "), got: -1",
		"Inference-Header-Content-Length: 99999999999999999999\r\n": "inference header size should be in range",
		length(header - 1):                                          "body: the text ends",
		length(header + 1):                                          "unexpected size for input 'pixels', expecting 1 additional bytes",
		"":                                                          "unexpected size for input 'pixels', expecting 256 additional bytes",
	} {
		c.send(t, postWith(path, headers, plain))
		if status, body, h := c.answer(t); status != 400 || !strings.Contains(errorText(t, body), want) || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s; want %s", headers, status, body, want)
		}
	}
	c.send(t, postWith("/predict", length(5), features))
	if status, body, _ := c.answer(t); status != 400 || !strings.Contains(errorText(t, body), "this path takes JSON only") {
		t.Errorf("predict: %d %s", status, body)
	}
}

// TestCompressionBombs are refused at http.max_body bytes of what they hold.
func TestCompressionBombs(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	fits := features + strings.Repeat(" ", limits.MaxBody-len(features))
	for _, coding := range []string{"gzip", "deflate"} {
		headers := "Content-Encoding: " + coding + "\r\n"
		c.send(t, postWith("/predict", headers, packed(t, coding, fits)))
		if status, body, _ := c.answer(t); status != 200 {
			t.Errorf("%s: %d %s", coding, status, body)
		}
		bomb := packed(t, coding, strings.Repeat(" ", 8<<20))
		if len(bomb) > limits.MaxBody {
			t.Fatalf("%d bytes", len(bomb))
		}
		for _, large := range []string{packed(t, coding, fits+" "), bomb} {
			c.send(t, postWith("/predict", headers, large))
			if status, body, _ := c.answer(t); status != 413 || errorText(t, body) != "body: decompressed larger than http.max_body, which is 65536 bytes" {
				t.Errorf("%s: %d %s", coding, status, body)
			}
		}
		for _, bad := range []string{"", "x", packed(t, coding, features)[:30]} {
			c.send(t, postWith("/predict", headers, bad))
			if status, body, _ := c.answer(t); status != 400 || !strings.Contains(errorText(t, body), "body: not compressed as Content-Encoding says, with "+coding) {
				t.Errorf("%s: %d %s", coding, status, body)
			}
		}
	}
	c.send(t, post("/predict", features))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("afterwards: %d %s", status, body)
	}
}

// TestCompressedAnswers: large ones are, for clients that accept it.
func TestCompressedAnswers(t *testing.T) {
	o := limits
	o.MaxBody = 1 << 20
	c := dial(t, serve(t, newAPI(t, Options{}), o))
	many := inferPixels("[1000,64]", "["+strings.Repeat(row+",", 999)+row+"]")
	binaryHead := strings.Replace(many, `{"inputs"`, `{"parameters":{"binary_data_output":true},"inputs"`, 1)
	for name, x := range map[string]struct {
		accept, body, want string
	}{
		"none":              {"", many, ""},
		"gzip":              {"gzip, deflate", many, "gzip"},
		"deflate":           {"br;q=1, deflate", many, "deflate"},
		"refused":           {"gzip;q=0, identity", many, ""},
		"gzip with weight":  {"deflate;q=0.1, GZIP;q=0.5", many, "gzip"},
		"binary":            {"gzip", binaryHead, "gzip"},
		"too small, always": {"gzip, deflate", inferPixels("[1,64]", row), ""},
	} {
		headers := ""
		if x.accept != "" {
			headers = "Accept-Encoding: " + x.accept + "\r\n"
		}
		c.send(t, post("/v2/models/digits/infer", x.body))
		_, want, plain := c.answer(t)
		c.send(t, postWith("/v2/models/digits/infer", headers, x.body))
		status, body, h := c.answer(t)
		coding := h.Get("Content-Encoding")
		if status != 200 || coding != x.want || unpacked(t, coding, body) != want || h.Get("Inference-Header-Content-Length") != plain.Get("Inference-Header-Content-Length") {
			t.Errorf("%s: %d %v, %d bytes for %d", name, status, h, len(body), len(want))
		}
		if vary := h.Get("Vary"); (vary == "Accept-Encoding") != (len(want) >= compressFrom) {
			t.Errorf("%s: Vary is %q for %d bytes", name, vary, len(want))
		}
	}
}

var serverTiming = regexp.MustCompile(`^queue;dur=\d+\.\d{3}, batch;dur=\d+\.\d{3}, engine;dur=\d+\.\d{3}$`)

// TestEchoedHeaders: what a client sends to find its request again comes back, also with an
// error; what the time went to is in each inference answer.
func TestEchoedHeaders(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, x := range []struct {
		path, body string
		status     int
	}{
		{"/predict", features, 200},
		{"/v2/models/digits/infer", inferPixels("[1,64]", row), 200},
		{"/predict", "{}", 422},
		{"/nowhere", "", 404},
		{"/predict", features + strings.Repeat(" ", limits.MaxBody), 413},
	} {
		c.send(t, postWith(x.path, "x-request-id: a b/1\r\ntraceparent: "+trace+"\r\n", x.body))
		status, _, h := c.answer(t)
		if status != x.status || h.Get("X-Request-Id") != "a b/1" || h.Get("traceparent") != trace {
			t.Errorf("%s: %d %v", x.path, status, h)
		}
		if got := h.Get("Server-Timing"); serverTiming.MatchString(got) != (status == 200) {
			t.Errorf("%s: %d, Server-Timing is %q", x.path, status, got)
		}
	}
	c = dial(t, serve(t, newAPI(t, Options{}), limits))
	c.send(t, post("/predict", features))
	_, _, h := c.answer(t)
	for _, name := range []string{"X-Request-Id", "Traceparent", "Inference-Header-Content-Length", "Content-Encoding"} {
		if v, ok := h[http.CanonicalHeaderKey(name)]; ok {
			t.Errorf("%s: %v", name, v)
		}
	}
}

func TestAppendMilliseconds(t *testing.T) {
	for d, want := range map[int64]string{0: "0.000", 999: "0.000", 1000: "0.001", 1_234_567: "1.234", 61_000_000_050: "61000.000"} {
		if got := string(appendMilliseconds(nil, time.Duration(d))); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

// binaryRequests are those that cost no allocation, beside common.
func binaryRequests() map[string]*fasthttp.RequestCtx {
	all := map[string]*fasthttp.RequestCtx{}
	for name, more := range map[string]string{"binary": `"parameters":{"binary_data_output":true},`, "binary in, JSON out": ""} {
		body, header := pixelsBody(more)
		ctx := request("/v2/models/digits/infer", body)
		ctx.Request.Header.Set("Inference-Header-Content-Length", itoa(header))
		ctx.Request.Header.Set("X-Request-Id", "7")
		ctx.Request.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		all[name] = ctx
	}
	return all
}
