package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"preforkd/internal/worker/admission"
)

// inferPixels is a body of /infer with the given shape and data.
func inferPixels(shape, data string) string {
	return `{"inputs":[{"name":"pixels","shape":` + shape + `,"datatype":"FP32","data":` + data + `}]}`
}

// TestBadBodies sends what clients get wrong, each followed by a good request on the
// same connection.
func TestBadBodies(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	const p, v2 = "/predict", "/v2/models/digits/infer"
	deep := strings.Repeat("[", 30_000)
	for name, x := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"empty":                {p, ``, 422, "body: empty"},
		"not JSON":             {p, `features=1`, 422, "body: 'f' where '{' is expected"},
		"truncated":            {p, features[:100], 422, "features[43]: the text ends"},
		"trailing garbage":     {p, features + "x", 422, "body: text after the end"},
		"byte order mark":      {p, "\xef\xbb\xbf" + features, 422, "body: starts with a byte order mark"},
		"deep":                 {p, `{"features":` + deep, 422, "nested deeper than 64"},
		"deep elsewhere":       {p, `{"x":` + deep, 422, "x: nested deeper than 64"},
		"no features":          {p, `{}`, 422, "features: missing"},
		"NaN":                  {p, strings.Replace(features, "3", "NaN", 1), 422, "features[0]: 'N'"},
		"infinity":             {p, strings.Replace(features, "3", "-Infinity", 1), 422, "features[0]: 'I'"},
		"string":               {p, strings.Replace(features, "3", `"3"`, 1), 422, "features[0]: '\"'"},
		"too large a number":   {p, strings.Replace(features, "3", `1e39`, 1), 422, "features[0]: 1e39 does not fit FP32"},
		"short row":            {p, `{"features":[1,2]}`, 422, "features: 2 numbers, the model takes 64"},
		"short second row":     {p, `{"features":[` + row + `,[1]]}`, 422, "features[1]: 1 numbers, the model takes 64"},
		"invalid UTF-8":        {p, "{\"\xff\":1}", 422, "body: invalid UTF-8"},
		"unknown model":        {p + "/nobody", features, 404, "Request for unknown model: 'nobody' is not found"},
		"no predict":           {p + "/two", features, 400, `model "two" does not answer POST /predict`},
		"unknown model, infer": {"/v2/models/nobody/infer", features, 404, "Request for unknown model: 'nobody' is not found"},
		"unknown version":      {"/v2/models/digits/versions/9/infer", features, 404, "Request for unknown model: 'digits' version 9 is not found"},
		"truncated, infer":     {v2, inferPixels("[1,64]", row)[:80], 400, "inputs[0].data[5]: the text ends"},
		"no inputs":            {v2, `{}`, 400, "inputs: missing"},
		"deep data":            {v2, inferPixels("[1,64]", deep), 400, "inputs[0].data[0]: nested deeper"},
		"wrong element":        {v2, inferPixels("[1,64]", strings.Replace(row, ",0", `,"0"`, 1)), 400, "inputs[0].data[1]: '\"'"},
		"wrong shape":          {v2, inferPixels("[1,63]", row), 400, "inputs[0].shape: [1 63], the model takes [-1 64]"},
		"mismatch":             {v2, inferPixels("[2,64]", row), 400, "inputs[0].data: 64 elements, the shape [2 64] has 128"},
		"overflow":             {v2, inferPixels("[9223372036854775807,64]", row), 400, "inputs[0].shape: the number of elements overflows"},
		"huge":                 {v2, inferPixels("[10000000000000000,64]", row), 400, "inputs[0].data: 64 elements"},
		"wrong datatype":       {v2, strings.Replace(inferPixels("[1,64]", row), "FP32", "INT64", 1), 400, "inputs[0].datatype: INT64"},
		"unknown input":        {v2, strings.Replace(inferPixels("[1,64]", row), "pixels", "pixel", 1), 400, `inputs[0].name: the model has no input "pixel"`},
		"unknown output":       {v2, `{"outputs":[{"name":"x"}]}`, 400, `outputs[0].name: the model has no output "x"`},
		"reserved":             {v2, `{"parameters":{"triton_x":1}}`, 400, "parameters.triton_x: "},
		"input refused":        {"/predict/failing", `{"features":[-1]}`, 400, "x is negative"},
		"engine at fault":      {"/predict/failing", `{"features":[1]}`, 500, "the engine is out of memory"},
		"NaN returned":         {"/predict/nan", `{"features":[1]}`, 500, `output "ratio": element 0 is not a finite number`},
	} {
		t.Run(name, func(t *testing.T) {
			c.send(t, post(x.path, x.body)+post("/predict", features))
			status, body, h := c.answer(t)
			if status != x.status || !strings.Contains(errorText(t, body), x.want) || h.Get("Content-Type") != "application/json" || strings.HasPrefix(body, `{"detail":`) != strings.HasPrefix(x.path, p) {
				t.Errorf("%d %s; want %d, %s", status, body, x.status, x.want)
			}
			if status, body, _ := c.answer(t); status != 200 || !strings.HasPrefix(body, `{"prediction":3,`) {
				t.Errorf("a good request afterwards: %d %s", status, body)
			}
		})
	}
}

// errorText returns the text of an error answer, in either form.
func errorText(t *testing.T, body string) string {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal([]byte(body), &e); err != nil || len(e) != 1 {
		t.Errorf("an error is answered with %s", body)
	}
	for _, text := range []any{e["error"], e["detail"]} {
		if text, ok := text.(string); ok {
			return text
		}
	}
	var d struct{ Detail []detail }
	if err := json.Unmarshal([]byte(body), &d); err != nil || len(d.Detail) != 1 || d.Detail[0].Type == "" || d.Detail[0].Msg == "" || d.Detail[0].Loc[0] != "body" {
		t.Errorf("an error is answered with %s", body)
		return ""
	}
	return d.Detail[0].Ctx.Error
}

// detail is an element of the list with which a body is refused in FastAPI's form.
type detail struct {
	Type, Msg string
	Loc       []any
	Ctx       struct{ Error string }
}

func TestBadHeaders(t *testing.T) {
	address := serve(t, newAPI(t, Options{}), limits)
	for name, x := range map[string]struct {
		header, body string
		status       int
		want         string
	}{
		"binary tensors":         {"Inference-Header-Content-Length: 10\r\n", features, 400, "Inference-Header-Content-Length: "},
		"binary tensors, no int": {"inference-header-content-length: x\r\n", features, 400, "Inference-Header-Content-Length: "},
		"all is header":          {"Inference-Header-Content-Length: " + itoa(len(features)) + "\r\n", features, 200, ""},
		"compressed, cut":        {"Content-Encoding: gzip\r\n", "\x1f\x8b\x08", 400, "body: not compressed as Content-Encoding says"},
		"compressed, not":        {"Content-Encoding: deflate\r\n", features, 400, "body: not compressed as Content-Encoding says"},
		"unknown coding":         {"Content-Encoding: br\r\n", features, 415, "Content-Encoding: only gzip, deflate and identity"},
		"identity":               {"Content-Encoding: identity\r\n", features, 200, ""},
		"any content type":       {"Content-Type: application/octet-stream\r\n", features, 200, ""},
		"a form":                 {"Content-Type: multipart/form-data; boundary=x\r\n", features, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, address)
			c.send(t, strings.Replace(post("/predict", x.body), "Host: x\r\n", "Host: x\r\n"+x.header, 1))
			status, body, _ := c.answer(t)
			if status != x.status || !strings.Contains(body, x.want) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func TestBusy(t *testing.T) {
	permits := admission.New(admission.Options{Limit: 1})
	held, err := permits.Acquire(admission.Claim{})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, serve(t, newAPI(t, Options{Permits: permits, RequestTimeout: 10 * time.Millisecond}), limits))
	c.send(t, post("/predict", features))
	if status, body, _ := c.answer(t); status != 504 || errorText(t, body) != "no inference could start within 10ms (timeouts.request), all are busy" {
		t.Errorf("%d %s", status, body)
	}
	permits.Release(held)
	c.send(t, post("/predict", features))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}
