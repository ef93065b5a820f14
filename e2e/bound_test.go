package e2e

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/testkit"
)

// boundBody is http.max_body of TestMemoryBound. The factors are how many times as much a
// worker takes for requests of that size one after the other, as docs/operations.md says.
const (
	boundBody     = 8 << 20
	memoryFactor  = 8
	chunkedFactor = 12 // of a body in chunks, which is copied as it grows
)

// hostile is a request that costs as much memory as can be had for boundBody bytes.
type hostile struct {
	name, path string
	headers    map[string]string
	body       func() []byte // made anew, since all of them are much memory
	chunked    bool
	status     int
}

// room is how many units, separated by commas, there is room for between head and tail.
func room(head, unit, tail string) int {
	return (boundBody - len(head) - len(tail) + 1) / (len(unit) + 1)
}

// full makes head, as many units as there is room for, and tail.
func full(head, unit, tail string) func() []byte {
	return func() []byte {
		b := append([]byte(head), strings.Repeat(unit+",", room(head, unit, tail))...)
		return append(b[:len(b)-1], tail...)
	}
}

// v2Full is a request to infer of a model whose input x is all of unit, with its shape before
// its data and an error after them.
func v2Full(model, datatype, unit string) hostile {
	const head = `{"inputs":[{"name":"x","datatype":%q,"shape":[1,%8d],"data":[`
	n := room(fmt.Sprintf(head, datatype, 0), unit, "]x")
	return hostile{
		name: "V2, " + datatype + " of " + unit, path: "/v2/models/" + model + "/infer",
		body: full(fmt.Sprintf(head, datatype, n), unit, "]x"), status: 400,
	}
}

// compressedTo is so many bytes of text, compressed.
func compressedTo(t testing.TB, coding string, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if coding == "deflate" {
		w = zlib.NewWriter(&b)
	}
	block := bytes.Repeat([]byte(" "), 1<<20)
	for size > 0 {
		n, err := w.Write(block[:min(size, len(block))])
		if err != nil {
			t.Fatal(err)
		}
		size -= n
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func hostiles(t testing.TB) (all []hostile) {
	for _, c := range []struct{ model, datatype, unit string }{
		{"fp32", "FP32", "0"},
		{"fp32", "FP32", "-1.5e-7"},
		{"int8", "INT8", "0"},
		{"int64", "INT64", "0"},
		{"fp64", "FP64", "0"},
		{"text", "BYTES", `""`},
		{"text", "BYTES", `"\u00e4"`},
		{"text", "BYTES", `"abcdefghijklmnopqrstuvwxyz"`},
	} {
		all = append(all, v2Full(c.model, c.datatype, c.unit))
	}
	for _, c := range []struct{ name, head, unit, tail string }{
		{"one long string", `{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":["`, "abcdefg", `"]x`},
		{"one long string of escapes", `{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":["`, `\u00e4`, `"]x`},
		{"a long key", `{"`, `\u00e4`, `":1`},
		{"10,000 inputs and more", `{"inputs":[`, `{"name":"y","datatype":"FP32","shape":[1,1],"data":[1]}`, `]}`},
		{"10,000 unknown keys and more", `{`, `"a":{"b":[1,"c"]}`, `]`},
		{"numbers without a shape", `{"inputs":[{"name":"x","datatype":"INT64","data":[`, "0", `]}]}`},
	} {
		model := map[bool]string{true: "text", false: "int64"}[strings.Contains(c.head, "BYTES")]
		all = append(all, hostile{name: "V2, " + c.name, path: "/v2/models/" + model + "/infer", body: full(c.head, c.unit, c.tail), status: 400})
	}
	all = append(all, otherHostiles()...)
	all = append(all, binaryHostiles()...)
	for _, c := range []struct{ model, datatype, unit string }{{"fp32", "FP32", "0"}, {"int64", "INT64", "0"}, {"text", "BYTES", `""`}} {
		h := v2Full(c.model, c.datatype, c.unit)
		h.name, h.chunked = h.name+", in chunks", true
		all = append(all, h)
	}
	spaces := func() []byte { return bytes.Repeat([]byte(" "), 4*boundBody) }
	all = append(all, hostile{name: "more than the limit in chunks", path: "/predict/fp32", body: spaces, chunked: true, status: 413})
	for _, coding := range []string{"gzip", "deflate"} {
		headers := map[string]string{"Content-Encoding": coding}
		bomb, limit := compressedTo(t, coding, 16*boundBody), compressedTo(t, coding, boundBody)
		for path, status := range map[string]int{
			"/v2/models/fp32/infer": 400, "/predict/fp32": 422, "/v1/models/fp32:predict": 400, "/invocations": 422,
		} {
			all = append(all,
				hostile{name: coding + " bomb", path: path, headers: headers, body: func() []byte { return bomb }, status: 413},
				hostile{name: coding + " bomb of the limit", path: path, headers: headers, body: func() []byte { return limit }, status: status})
		}
	}
	return all
}

// otherHostiles are requests of the other protocols, and brackets for all of them.
func otherHostiles() (all []hostile) {
	add := func(name, path string, status int, body func() []byte) {
		all = append(all, hostile{name: name, path: path, body: body, status: status})
	}
	for path, status := range map[string]int{
		"/v2/models/fp32/infer": 400, "/predict/fp32": 422, "/v1/models/fp32:predict": 400, "/invocations": 422,
	} {
		brackets := func(head string) func() []byte {
			return func() []byte { return append([]byte(head), bytes.Repeat([]byte("["), boundBody-len(head))...) }
		}
		add("brackets", path, status, brackets(""))
		add("brackets within", path, status, brackets(`{"x":`))
	}
	for _, model := range []string{"fp32", "int64"} {
		v1 := "/v1/models/" + model + ":predict"
		for _, unit := range []string{"0", "[0]", "[]"} {
			add("rows of "+unit, "/predict/"+model, 422, full(`{"features":[`, unit, "]x"))
			add("rows of "+unit, v1, 400, full(`{"instances":[`, unit, "]x"))
			add("columns of "+unit, v1, 400, full(`{"inputs":{"x":[`, unit, "]}x"))
			add("a column of "+unit, v1, 400, full(`{"inputs":{"x":[[`, unit, "]]}x"))
		}
		add("rows with names", v1, 400, full(`{"instances":[`, `{"x":[0]}`, "]x"))
	}
	add("SageMaker", "/invocations", 422, full(`{"features":[`, "0", "]x"))
	for _, unit := range []string{`""`, `{"b64":""}`, `{"b64":"YWJjZA=="}`} {
		add("a column of "+unit, "/v1/models/text:predict", 400, full(`{"inputs":{"x":[[`, unit, "]]}x"))
	}
	add("one b64", "/v1/models/text:predict", 400, func() []byte {
		const head, tail = `{"inputs":{"x":[[{"b64":"`, `"}]]}x`
		return []byte(head + strings.Repeat("AAAA", (boundBody-len(head)-len(tail))/4) + tail)
	})
	return all
}

// binaryHostiles are requests with binary data.
func binaryHostiles() (all []hostile) {
	for _, c := range []struct {
		name, model, datatype string
		shape, missing        int
		fill                  []byte
	}{
		{"wrong size", "fp32", "FP32", boundBody/4 - 1024, 1, []byte{0}},
		{"strings that are empty", "text", "BYTES", boundBody/4 - 1024, 0, []byte{0}},
		{"strings of one byte", "text", "BYTES", (boundBody - 4096) / 5, (boundBody - 4096) % 5, []byte{1, 0, 0, 0, 'a'}},
		{"a string beyond the end", "text", "BYTES", 1, 0, []byte{255, 255, 255, 127}},
	} {
		size := boundBody - 4096 - c.missing
		head := fmt.Sprintf(`{"inputs":[{"name":"x","datatype":%q,"shape":[1,%d],"parameters":{"binary_data_size":%d}}]}x`, c.datatype, c.shape, size)
		all = append(all, hostile{
			name: "V2 binary, " + c.name, path: "/v2/models/" + c.model + "/infer",
			headers: map[string]string{"Inference-Header-Content-Length": fmt.Sprint(len(head))},
			body:    func() []byte { return append([]byte(head), bytes.Repeat(c.fill, size/len(c.fill)+1)[:size]...) }, status: 400,
		})
	}
	return all
}

// shapeModel tells the shape of its input, of any two sizes, whose elements are of a type.
func shapeModel(elem int64) []byte {
	return graphOf(nil, [][]byte{tensorOf("x", elem, -1, -1)}, [][]byte{tensorOf("y", onnxInt64, 2)}, operator("Shape", "y", "x"))
}

// TestMemoryBound sends one worker every kind of body that wants much memory, several times:
// none takes more than memoryFactor times http.max_body, and afterwards that is given back.
func TestMemoryBound(t *testing.T) {
	models := filepath.Join(t.TempDir(), "models")
	for name, elem := range map[string]int64{"fp32": onnxFloat, "int8": 3, "int64": onnxInt64, "fp64": 11, "text": 8} {
		dir := filepath.Join(models, name, "1")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "model.onnx"), string(shapeModel(elem)))
	}
	s := testkit.Start(t, testkit.Options{
		Workers: 1, Models: models, Program: filepath.Join(testkit.PlainPrograms(t), "preforkd"), // the race detector takes a multiple
		Set: []string{fmt.Sprint("http.max_body=", boundBody, "B"), "predict.model=fp32"},
	})
	worker := s.Workers()[0]
	all := hostiles(t)
	for _, h := range all { // what is made once
		h.send(t, s, []byte(`{"x":1`))
	}
	resident := memory(t, worker, "VmRSS")
	for _, h := range all {
		sent := h.body()
		if len(sent) > boundBody && h.status != http.StatusRequestEntityTooLarge {
			t.Fatalf("%s: %d bytes", h.name, len(sent))
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", worker), []byte("5"), 0); err != nil { // VmHWM begins anew, proc_pid_clear_refs(5)
			t.Fatal(err)
		}
		for range times(1, 3) {
			if status, text := h.send(t, s, sent); status != h.status {
				t.Errorf("%s, %s: %d, want %d: %.200s", h.path, h.name, status, h.status, text)
			}
		}
		factor := float64(memory(t, worker, "VmHWM")-resident) / boundBody
		t.Logf("%.2f %s %s", factor, h.path, h.name)
		limit := memoryFactor
		if h.chunked {
			limit = chunkedFactor
		}
		if factor > float64(limit) {
			t.Errorf("%s, %s: the worker took %.1f times http.max_body, %d at most are promised", h.path, h.name, factor, limit)
		}
	}
	if testkit.Await(func() bool { return memory(t, worker, "VmRSS")-resident < boundBody }) != nil {
		t.Errorf("%d bytes more than before stay in memory", memory(t, worker, "VmRSS")-resident)
	}
	if got := s.Workers(); len(got) != 1 || got[0] != worker {
		t.Errorf("worker %d died, %v serve", worker, got)
	}
}

func (h *hostile) send(t *testing.T, s *testkit.Service, body []byte) (status int, text string) {
	t.Helper()
	var r io.Reader = bytes.NewReader(body)
	if h.chunked {
		r = io.MultiReader(r) // hides the length
	}
	req, err := http.NewRequest(http.MethodPost, s.URL+h.path, r)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range h.headers {
		req.Header.Set(k, v)
	}
	resp, err := fresh.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, resp)
}
