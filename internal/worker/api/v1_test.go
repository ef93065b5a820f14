package api

import (
	"encoding/json"
	"strings"
	"testing"

	"preforkd/internal/inference/repository"
)

func TestServing(t *testing.T) {
	a := newAPI(t, Options{})
	setLabels(t, a)
	c := dial(t, serve(t, a, limits))
	rows := `{"instances":[` + row + `,` + row + `]}`
	const label, both = `{"label":3,"probabilities":[3,0]}`, `{"outputs":{"label":[3],"probabilities":[[3,0]]}}`
	for _, x := range []struct{ path, body, want string }{
		{"/v1/models/digits:predict", rows, `{"predictions":[` + label + `,` + label + `]}`},
		{"/v1/models/digits:predict?x=y", `{"instances":[{"pixels":` + row + `}]}`, `{"predictions":[` + label + `]}`},
		{"/v1/models/digits%3Apredict", `{"inputs":[` + row + `]}`, both},
		{"/v1/models/digits/versions/1:predict", `{"inputs":{"pixels":[` + row + `]}}`, both},
		{"/v1/models/digits/labels/stable:predict", `{"signature_name":"serving_default","inputs":[` + row + `]}`, both},
		{"/v1/models/two:predict", `{"instances":[{"a":[1,-2],"b":0.5}]}`, `{"predictions":[-0.5]}`},
		{"/v1/models/two:predict", `{"inputs":{"b":[0.5],"a":[[1,-2],[3,4]]}}`, `{"outputs":[6.5]}`},
		{"/v1/models/nan:predict", `{"instances":[[1]]}`, `{"predictions":[[NaN]]}`},
		{"/v1/models/nan:predict", `{"instances":[[NaN]]}`, `{"predictions":[[NaN]]}`},
	} {
		c.send(t, post(x.path, x.body))
		if status, body, h := c.answer(t); status != 200 || body != x.want || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s %.80s: %d %s", x.path, x.body, status, body)
		}
	}
}

// setLabels gives version 2 of digits, which is the one that is served, a label that leads
// to a version and one that does not.
func setLabels(t *testing.T, a *API) {
	t.Helper()
	m, err := a.Models.Find("digits", "")
	if err != nil {
		t.Fatal(err)
	}
	m.Settings.Labels = map[string]string{"stable": "1", "gone": "9"}
}

func TestServingRefuses(t *testing.T) {
	a := newAPI(t, Options{Refusal: func(m *repository.Model) string {
		if m.Name == "failing" {
			return "quarantined: it crashed workers"
		}
		return ""
	}})
	setLabels(t, a)
	c := dial(t, serve(t, a, limits))
	const p = "/v1/models/digits:predict"
	for _, x := range []struct {
		path, body string
		status     int
		want       string
	}{
		{p, ``, 400, "body: empty"},
		{p, `{}`, 400, `body: neither "instances"`},
		{p, `{"instances":[` + row + `],"inputs":[` + row + `]}`, 400, `inputs: "instances" and "inputs" are two forms`},
		{p, `{"instances":[` + row + `,[1,2]]}`, 400, "instances[1]: 2 elements, the model takes 64 (offset 144)"},
		{p, `{"instances":[` + strings.Replace(row, ",0", `,"0"`, 1) + `]}`, 400, `instances[0][1]: '"' where a number is expected (offset 17)`},
		{"/v1/models/two:predict", `{"inputs":{"a":[[1,2]]}}`, 400, "inputs.b: missing"},
		{"/v1/models/two:predict", `{"instances":[{"a":[1,2],"b":1},{"a":[1,2],"b":1}]}`, 400, `instances[0].b: 2 instances, the model takes 1`},
		{"/v1/models/nobody:predict", rowsOf(1), 404, "Servable not found for request: Latest(nobody)"},
		{"/v1/models/digits/versions/9:predict", rowsOf(1), 404, "Servable not found for request: Specific(digits, 9)"},
		{"/v1/models/nobody/versions/9:predict", rowsOf(1), 404, "Servable not found for request: Specific(nobody, 9)"},
		{"/v1/models/digits/labels/canary:predict", rowsOf(1), 404, "Unrecognized servable version label: canary"},
		{"/v1/models/digits/labels/gone:predict", rowsOf(1), 404, "Servable not found for request: Specific(digits, 9), which the label gone stands for"},
		{"/v1/models/nobody/labels/canary:predict", rowsOf(1), 404, "Servable not found for request: Latest(nobody)"},
		{"/v1/models/failing:predict", rowsOf(1), 503, "quarantined: it crashed workers"},
		{"/v1/models/digits:classify", `{"examples":[]}`, 501, ":classify is not implemented"},
		{"/v1/models/digits/versions/1:regress", ``, 501, ":regress is not implemented"},
		{"/v1/models/digits:explain", ``, 501, ":explain is not implemented"},
		{"/v1/models/nobody:explain", ``, 404, "Latest(nobody)"},
		{"/v1/models/digits:unknown", ``, 405, "method not allowed"},
		{"/v1/models/:predict", ``, 405, "method not allowed"}, // the model ":predict"
		{"/v1/models/digits/versions:predict", ``, 404, "no such path"},
		{"/v1/models/digits:predict/versions/1", ``, 405, "method not allowed"},
		{"/v1/models/digits/versions/1/labels/x:predict", ``, 404, "no such path"},
	} {
		c.send(t, post(x.path, x.body)+post(p, rowsOf(1)))
		status, body, _ := c.answer(t)
		if status != x.status || !strings.HasPrefix(body, `{"error":`) || !strings.Contains(errorText(t, body), x.want) {
			t.Errorf("%s %.80s: %d %s; want %d, %s", x.path, x.body, status, body, x.status, x.want)
		}
		if status, body, _ := c.answer(t); status != 200 {
			t.Errorf("a good request afterwards: %d %s", status, body)
		}
	}
}

// rowsOf is a body with so many good instances.
func rowsOf(n int) string {
	return `{"instances":[` + strings.Repeat(row+",", n-1) + row + `]}`
}

func TestServingStatus(t *testing.T) {
	a := newAPI(t, Options{Refusal: func(m *repository.Model) string {
		if m.Name == "two" {
			return "quarantined"
		}
		return ""
	}})
	setLabels(t, a)
	const available = `"state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}`
	for path, want := range map[string]string{
		"/v1/models/digits":               `{"name":"digits","ready":true,"model_version_status":[{"version":"2",` + available + `,{"version":"1",` + available + `]}`,
		"/v1/models/digits/versions/1":    `{"name":"digits","ready":true,"model_version_status":[{"version":"1",` + available + `]}`,
		"/v1/models/digits/labels/stable": `{"name":"digits","ready":true,"model_version_status":[{"version":"1",` + available + `]}`,
		"/v1/models/two":                  `{"name":"two","ready":false,"model_version_status":[{"version":"1","state":"END","status":{"error_code":"UNAVAILABLE","error_message":"quarantined"}}]}`,
		"/v1/models/nobody":               `{"error":"Servable not found for request: Latest(nobody)"}`,
		"/v1/models/two/metadata": `{"model_spec":{"name":"two","signature_name":"","version":"1"},"metadata":{"signature_def":{"signature_def":{"serving_default":{` +
			`"inputs":{"a":{"dtype":"DT_INT64","tensor_shape":{"dim":[{"size":"-1","name":""},{"size":"2","name":""}],"unknown_rank":false},"name":"a"},` +
			`"b":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"1","name":""}],"unknown_rank":false},"name":"b"}},` +
			`"outputs":{"sum":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"1","name":""}],"unknown_rank":false},"name":"sum"}},"method_name":"tensorflow/serving/predict"}}}}}`,
	} {
		resp := get(a, path)
		if body := string(resp.Body()); body != want || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d %s\nwant %s", path, resp.StatusCode(), body, want)
		}
	}
	for _, path := range []string{"/v1/models/digits/versions/1/metadata", "/v1/models/digits/labels/stable/metadata"} {
		if body := string(get(a, path).Body()); !strings.HasPrefix(body, `{"model_spec":{"name":"digits","signature_name":"","version":"1"}`) {
			t.Errorf("%s: %s", path, body)
		}
	}
	var list struct{ Models []string }
	if err := json.Unmarshal(get(a, "/v1/models").Body(), &list); err != nil || len(list.Models) != len(models) {
		t.Errorf("%v, %v", list, err)
	}
}

func TestInvocations(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	for _, x := range []struct {
		header, body string
		status       int
		want         string
	}{
		{"", features, 200, `{"prediction":3,"probabilities":[3,0],"model":"digits","version":"2"}`},
		{"X-Amzn-SageMaker-Target-Model: digits\r\n", features, 200, `{"prediction":3,"probabilities":[3,0],"model":"digits","version":"2"}`},
		{"x-amzn-sagemaker-target-model: nobody\r\n", features, 404, `{"detail":"Request for unknown model: 'nobody' is not found"}`},
		{"X-Amzn-SageMaker-Target-Model: two\r\n", features, 400, `{"detail":"model \"two\" does not answer POST /predict: `},
		{"Content-Type: text/csv\r\n", "1,2,3", 422, `{"detail":[{"type":"json_invalid","loc":["body",1],`},
		{"", `{"features":[1]}`, 422, `{"detail":[{"type":"too_short","loc":["body","features"],"msg":"List should have at least 64 items after validation, not 1","input":[1],`},
	} {
		c.send(t, strings.Replace(post("/invocations", x.body), "Host: x\r\n", "Host: x\r\n"+x.header, 1))
		if status, body, _ := c.answer(t); status != x.status || !strings.HasPrefix(body, x.want) {
			t.Errorf("%s%s: %d %s", x.header, x.body, status, body)
		}
	}
}
