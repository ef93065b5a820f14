package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/testkit"
)

// TestBadInputIsPlaced sends each protocol what it must refuse: the answer says in which field
// and at which byte.
func TestBadInputIsPlaced(t *testing.T) {
	models := filepath.Join(t.TempDir(), "models")
	for name, elem := range map[string]int64{"fp32": onnxFloat, "text": 8} {
		dir := filepath.Join(models, name, "1")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "model.onnx"), string(shapeModel(elem)))
	}
	s := testkit.Start(t, testkit.Options{Workers: 1, Models: models, Set: []string{"predict.model=fp32"}})
	worker := s.Workers()
	const (
		v2, v2Text = "/v2/models/fp32/infer", "/v2/models/text/infer"
		v1, v1Text = "/v1/models/fp32:predict", "/v1/models/text:predict"
		short, sm  = "/predict/fp32", "/invocations"
	)
	input := func(shape, data string) string {
		return `{"inputs":[{"name":"x","datatype":"FP32","shape":` + shape + `,"data":` + data + `}]}`
	}
	sized := func(datatype, shape string, size int) string {
		return fmt.Sprintf(`{"inputs":[{"name":"x","datatype":%q,"shape":%s,"parameters":{"binary_data_size":%d}}]}`, datatype, shape, size)
	}
	brackets := strings.Repeat("[", 100_000)
	many := strings.TrimSuffix(strings.Repeat(`{"name":"y","datatype":"FP32","shape":[1,1],"data":[1]},`, 10_000), ",")
	for _, c := range []struct {
		name, path   string
		json, binary string
		header       string // Inference-Header-Content-Length; empty: as long as json, if there is binary
		status       int
		want         string
	}{
		{name: "overflow", path: v2, json: input("[9223372036854775807,64]", "[1]"), want: `inputs[0].shape: the number of elements overflows (offset 49)`},
		{name: "overflow, binary", path: v2, json: sized("FP32", "[9223372036854775807,64]", 4), binary: "abcd", want: `inputs[0].shape: the number of elements overflows (offset 49)`},
		{name: "negative", path: v2, json: input("[-1,1]", "[1]"), want: `inputs[0].shape[0]: -1 is negative (offset 50)`},
		{name: "negative, binary", path: v2, json: sized("FP32", "[1,-1]", 4), binary: "abcd", want: `inputs[0].shape[1]: -1 is negative (offset 52)`},
		{name: "huge", path: v2, json: input("[1000000000000,1]", "[1]"), want: `inputs[0].data: 1 elements, the shape [1000000000000 1] has 1000000000000 (offset 74)`},
		{name: "huge, binary", path: v2, json: sized("FP32", "[1000000000000,1]", 4), binary: "abcd", want: `inputs[0].parameters.binary_data_size: 4 bytes, the shape [1000000000000 1] of FP32 has 4000000000000 (offset 100)`},
		{name: "huge, strings", path: v2Text, json: sized("BYTES", "[1000000000000,1]", 5), binary: "\x01\x00\x00\x00a", want: `inputs[0].parameters.binary_data_size: 5 bytes cannot hold the 1000000000000 strings of the shape [1000000000000 1] (offset 101)`},
		{name: "more elements", path: v2, json: input("[1,2]", "[1,2,3]"), want: `inputs[0].data: 3 elements, the shape [1 2] has 2 (offset 62)`},
		{name: "more bytes", path: v2, json: sized("FP32", "[1,2]", 12), binary: "abcdabcdabcd", want: `inputs[0].parameters.binary_data_size: 12 bytes, the shape [1 2] of FP32 has 8 (offset 88)`},
		{name: "bytes of nobody", path: v2, json: sized("FP32", "[1,1]", 4), binary: "abcdabcd", want: `body: unexpected additional input data: 4 bytes belong to no input (offset 97)`},
		{name: "fewer bytes", path: v2, json: sized("FP32", "[1,2]", 8), binary: "abcd", want: `inputs[0].parameters.binary_data_size: unexpected size for input 'x', expecting 4 additional bytes (offset 88)`},
		{name: "another row", path: short, json: `{"features":[[1,2],[3]]}`, status: 422, want: `features[1]: 1 numbers, the model takes rows of one length, the first has 2 (offset 19)`},
		{name: "another row", path: sm, json: `{"features":[[1,2],[3]]}`, status: 422, want: `features[1]: 1 numbers, the model takes rows of one length, the first has 2 (offset 19)`},
		{name: "another row", path: v1, json: `{"instances":[[1,2],[3]]}`, want: `instances[1]: 1 elements, the first array beside it has 2 (offset 20)`},
		{name: "another row, columns", path: v1, json: `{"inputs":{"x":[[1,2],[3]]}}`, want: `inputs.x[1]: 1 elements, the first array beside it has 2 (offset 22)`},
		{name: "header beyond the body", path: v2, json: input("[1,1]", "[1]"), header: "1000", want: `Inference-Header-Content-Length: inference header size should be in range (0, 68), got: 1000`},
		{name: "header below 0", path: v2, json: input("[1,1]", "[1]"), header: "-1", want: `Inference-Header-Content-Length: inference header size should be in range (0, 68), got: -1`},
		{name: "header of no number", path: v2, json: input("[1,1]", "[1]"), header: "99999999999999999999", want: `Inference-Header-Content-Length: inference header size should be in range (0, 68), got: 99999999999999999999`},
		{name: "header", path: short, json: `{"features":[1]}`, header: "5", want: `Inference-Header-Content-Length: this path takes JSON only: use POST /v2/models/…/infer for binary tensor data`},
		{name: "header", path: v1, json: `{"instances":[[1]]}`, header: "5", want: `Inference-Header-Content-Length: this path takes JSON only: use POST /v2/models/…/infer for binary tensor data`},
		{name: "BYTES beyond the end", path: v2Text, json: sized("BYTES", "[1,1]", 8), binary: "\xff\xff\xff\x7fabcd", want: `inputs[0].parameters.binary_data_size: string 0 of input 'x' is 2147483647 bytes long, 4 are left (offset 94)`},
		{name: "BYTES with half a length", path: v2Text, json: sized("BYTES", "[1,2]", 8), binary: "\x02\x00\x00\x00ab\x01\x00", want: `inputs[0].parameters.binary_data_size: the data of input 'x' ends before string 1 of 2 (offset 100)`},
		{name: "BYTES with more", path: v2Text, json: sized("BYTES", "[1,1]", 8), binary: "\x01\x00\x00\x00aabc", want: `inputs[0].parameters.binary_data_size: 3 bytes of input 'x' follow its last string (offset 99)`},
		{name: "brackets", path: v2, json: input("[1,1]", brackets), want: `inputs[0].data[0]: nested deeper than 64 levels (offset 123)`},
		{name: "brackets, unknown key", path: v2, json: `{"x":` + brackets, want: `x: nested deeper than 64 levels (offset 68)`},
		{name: "brackets", path: short, json: `{"features":` + brackets, status: 422, want: `body: nested deeper than 64 levels (offset 75)`},
		{name: "brackets", path: sm, json: `{"features":` + brackets, status: 422, want: `body: nested deeper than 64 levels (offset 75)`},
		{name: "brackets", path: v1, json: `{"instances":` + brackets, want: `instances: more arrays in one another than in the shape [-1 -1] that the model takes (offset 13)`},
		{name: "brackets, columns", path: v1, json: `{"inputs":{"x":` + brackets, want: `inputs.x: more arrays in one another than in the shape [-1 -1] that the model takes (offset 15)`},
		{name: "twice", path: v2, json: `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]},{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}`, want: `inputs[1].name: input "x" is given twice (offset 75)`},
		{name: "key twice", path: v2, json: `{"inputs":[{"name":"x","name":"x"}]}`, want: `inputs[0].name: given twice (offset 30)`},
		{name: "key twice", path: short, json: `{"features":[1],"features":[1]}`, status: 422, want: `features: given twice (offset 27)`},
		{name: "key twice", path: sm, json: `{"features":[1],"features":[1]}`, status: 422, want: `features: given twice (offset 27)`},
		{name: "twice", path: v1, json: `{"instances":[{"x":[1],"x":[1]}]}`, want: `instances[0].x: given twice (offset 27)`},
		{name: "twice, columns", path: v1, json: `{"inputs":{"x":[[1]],"x":[[1]]}}`, want: `inputs.x: given twice (offset 25)`},
		{name: "invalid UTF-8", path: v2Text, json: "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"BYTES\",\"shape\":[1,1],\"data\":[\"a\xff\"]}]}", want: `inputs[0].data[0]: invalid UTF-8 in a string (offset 66)`},
		{name: "invalid UTF-8 in a name", path: v2, json: "{\"inputs\":[{\"name\":\"\xc0\x80\"}]}", want: `inputs[0].name: invalid UTF-8 in a string (offset 20)`},
		{name: "invalid UTF-8", path: short, json: "{\"\xff\":1}", status: 422, want: `body: invalid UTF-8 in a string (offset 2)`},
		{name: "invalid UTF-8", path: sm, json: "{\"\xff\":1}", status: 422, want: `body: invalid UTF-8 in a string (offset 2)`},
		{name: "invalid UTF-8", path: v1Text, json: "{\"instances\":[[\"a\xff\"]]}", want: `instances[0][0]: invalid UTF-8 in a string (offset 17)`},
		{name: "invalid UTF-8, columns", path: v1Text, json: "{\"inputs\":{\"x\":[[\"a\xff\"]]}}", want: `inputs.x[0][0]: invalid UTF-8 in a string (offset 19)`},
		{name: "10,000 inputs", path: v2, json: `{"inputs":[` + many + `]}`, want: `inputs[0].name: the model has no input "y" (offset 19)`},
		{name: "10,000 inputs, columns", path: v1, json: `{"inputs":{"x":[[1]],` + strings.TrimSuffix(strings.Repeat(`"y":[[1]],`, 10_000), ",") + `}}`, want: `inputs.y: the model has no input "y", only "x" (offset 25)`},
	} {
		req, err := http.NewRequest(http.MethodPost, s.URL+c.path, strings.NewReader(c.json+c.binary))
		if err != nil {
			t.Fatal(err)
		}
		if c.header == "" && c.binary != "" {
			c.header = fmt.Sprint(len(c.json))
		}
		if c.header != "" {
			req.Header.Set("Inference-Header-Content-Length", c.header)
		}
		resp, err := fresh.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := refusal(text); err != nil || resp.StatusCode != max(c.status, 400) || got != c.want {
			t.Errorf("%s, %s: %d, %v\n%s\nwant\n%s", c.path, c.name, resp.StatusCode, err, got, c.want)
		}
	}
	if got := s.Workers(); fmt.Sprint(got) != fmt.Sprint(worker) {
		t.Errorf("worker %v died, %v serves", worker, got)
	}
}

// refusal returns the text of an error answer, in either form.
func refusal(body []byte) string {
	var plain struct {
		Error  string
		Detail json.RawMessage
	}
	if json.Unmarshal(body, &plain) != nil {
		return string(body)
	}
	var list []struct{ Ctx struct{ Error string } }
	if json.Unmarshal(plain.Detail, &list) == nil && len(list) == 1 {
		return list[0].Ctx.Error
	}
	var text string
	if json.Unmarshal(plain.Detail, &text) == nil {
		return text
	}
	return plain.Error
}
